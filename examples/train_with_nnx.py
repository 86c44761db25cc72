"""A loop in Flax NNX, with our model, augmentation and loss.

python examples/train_with_nnx.py
"""

import jax
import numpy as np
import optax
from flax import nnx
from small_digits import FIELDS, digits

import cnn_flax
from cnn_flax import augment
from cnn_flax.losses import cross_entropy


@nnx.jit
def train_step(
    model: nnx.Module,
    optimizer: nnx.Optimizer,
    key: jax.Array,
    images: jax.Array,
    labels: jax.Array,
) -> jax.Array:
    """Updates model and optimizer in place; returns the loss."""
    images = augment.random_crop(key, images, (8, 8), padding=1)

    def loss_of(model):
        return cross_entropy(model(images), labels, label_smoothing=0.1)

    loss, grads = nnx.value_and_grad(loss_of)(model)
    optimizer.update(model, grads)
    return loss


def main(steps: int = 200) -> None:
    """Trains, and prints the accuracy."""
    images, labels, test_images, test_labels = digits()
    model = cnn_flax.nnx.create_model(
        "resnet18", rngs=nnx.Rngs(0), in_channels=1, **FIELDS
    )
    tx = optax.adamw(optax.cosine_decay_schedule(3e-3, steps))
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
    model.train()
    rng = np.random.default_rng(0)
    for i in range(steps):
        rows = rng.choice(len(images), 64, replace=False)
        key = jax.random.fold_in(jax.random.key(1), i)
        train_step(model, optimizer, key, images[rows], labels[rows])
    model.eval()
    predicted = nnx.jit(lambda model, x: model(x).argmax(-1))(model, test_images)
    print(f"accuracy {100 * np.mean(predicted == test_labels):.1f} %")


if __name__ == "__main__":
    main()
