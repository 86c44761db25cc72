"""A Grain pipeline in front of our augmentation: shuffled, batched, resumable.

    pip install grain
    python examples/train_with_grain.py

Grain brings `uint8` batches; the jitted step of `train_with_linen.py` augments them on
the device, with a key per step. The iterator's state is a dictionary of numbers: saved
with the weights, it continues where it was.
"""

import grain
import jax
import numpy as np
from small_digits import FIELDS, digits
from train_with_linen import accuracy, create_state, train_step

import cnn_flax


def batches(images: np.ndarray, labels: np.ndarray) -> grain.IterDataset:
    """Batches of 64 in random order, another one in every epoch, without end."""
    rows = grain.MapDataset.range(len(images)).seed(0).shuffle().repeat()
    examples = rows.map(lambda i: {"image": images[i], "label": labels[i]})
    return examples.to_iter_dataset().batch(64)


def main(steps: int = 200) -> None:
    """Trains, stops halfway, goes on with another iterator, and prints the accuracy."""
    images, labels, *test = digits()
    pixels = np.uint8(255 * images)
    state = create_state(cnn_flax.create_model("resnet18", **FIELDS), steps)
    stream = iter(batches(pixels, labels))
    for i in range(steps):
        if i == steps // 2:
            saved = stream.get_state()
            stream = iter(batches(pixels, labels))
            stream.set_state(saved)
        batch = next(stream)
        key = jax.random.fold_in(jax.random.key(1), i)
        scaled = batch["image"].astype(np.float32) / 255
        state, _ = train_step(state, key, scaled, batch["label"])
    print(f"accuracy {100 * accuracy(state, *test):.1f} %")


if __name__ == "__main__":
    main()
