"""Segmentation of scikit-learn's digits in noise: data, training and figure."""

import argparse
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import numpy as np
import optax
from flax import linen as nn
from sklearn.datasets import load_digits

import cnn_flax
from cnn_flax.losses import cross_entropy

__all__ = ["digit_masks", "mean_iou", "segment_digits"]

SIZE = 64  # Height and width of an image, in pixels.
_SCALE = 3  # A digit of 8 x 8 pixels takes 24 x 24.


def digit_masks(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Images with two digits each, and the class of every pixel.

    Args:
      count: N, number of images.
      seed: of digits, places and noise. Even digits are for even seeds, odd ones for
        odd seeds, so that no image of one is in the other.

    Returns:
      Images float32 `[N, 64, 64, 1]` in [0, 1], and masks int32 `[N, 64, 64]`: 0 for
      the background, 1 to 10 for the digits 0 to 9.
    """
    rng = np.random.default_rng(seed)
    pixels, labels = load_digits(return_X_y=True)
    own = np.arange(seed % 2, len(labels), 2)
    images = rng.uniform(0, 0.3, (count, SIZE, SIZE, 1)).astype(np.float32)
    masks = np.zeros((count, SIZE, SIZE), np.int32)
    side = 8 * _SCALE
    for image, mask in zip(images, masks, strict=True):
        for left in (0, SIZE // 2):  # One digit on either side.
            chosen = rng.choice(own)
            digit = np.kron(pixels[chosen].reshape(8, 8) / 16, np.ones((_SCALE,) * 2))
            y = rng.integers(0, SIZE - side + 1)
            x = left + rng.integers(0, SIZE // 2 - side + 1)
            window = np.s_[y : y + side, x : x + side]
            image[window][..., 0] = np.maximum(image[window][..., 0], digit)
            mask[window][digit > 0.4] = labels[chosen] + 1
    return images, masks


def mean_iou(masks: np.ndarray, predicted: np.ndarray, classes: int = 11) -> float:
    """Mean over the classes of intersection over union, over all pixels.

    Args:
      masks: class of each pixel, int `[N, H, W]`.
      predicted: the same as a model says.
      classes: number of classes.
    """
    counts = np.bincount((classes * masks + predicted).ravel(), minlength=classes**2)
    table = counts.reshape(classes, classes)
    both = np.diag(table)
    either = table.sum(axis=0) + table.sum(axis=1) - both
    return float(np.mean(both[either > 0] / either[either > 0]))


def train(
    model: nn.Module, steps: int, batch_size: int = 32, rate: float = 4e-3
) -> dict[str, Any]:
    """A model's variables after training on 1,024 images.

    Args:
      model: `[N, H, W, 1]` to logits `[N, H, W, 11]`; takes `train`.
      steps: number of steps.
      batch_size: images per step.
      rate: the first learning rate of AdamW, which falls to 0 as a cosine.
    """
    images, masks = digit_masks(1024, seed=0)
    key = jax.random.key(0)
    variables = model.init(key, images[:1])
    tx = optax.adamw(optax.cosine_decay_schedule(rate, steps))

    @partial(jax.jit, donate_argnums=(0, 1))
    def step(variables, opt_state, images, masks):
        def loss(params):
            of_step = {**variables, "params": params}
            logits, new = model.apply(
                of_step, images, train=True, mutable=["batch_stats"]
            )
            pixels = logits.reshape(-1, logits.shape[-1])
            return cross_entropy(pixels, masks.reshape(-1)), new

        grads, new = jax.grad(loss, has_aux=True)(variables["params"])
        updates, opt_state = tx.update(grads, opt_state, variables["params"])
        params = optax.apply_updates(variables["params"], updates)
        return {"params": params, **new}, opt_state

    opt_state = tx.init(variables["params"])
    rng = np.random.default_rng(0)
    for _ in range(steps):
        rows = rng.choice(len(images), batch_size, replace=False)
        variables, opt_state = step(variables, opt_state, images[rows], masks[rows])
    return variables


def evaluate(model: nn.Module, variables: dict[str, Any], count: int = 128) -> float:
    """Mean intersection over union on images of the odd digits."""
    images, masks = digit_masks(count, seed=1)
    logits = jax.jit(model.apply)(variables, images)
    return mean_iou(masks, np.asarray(logits.argmax(-1)))


def segment_digits(text: str | None, make: Callable[[nn.Module], nn.Module]) -> None:
    """The command line of an example: trains a decoder and prints its figure.

    Args:
      text: the program's description.
      make: makes the model from a backbone.
    """
    parser = argparse.ArgumentParser(
        description=text, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=400)
    steps = parser.parse_args().steps
    # Narrow, for a CPU; any model and any stages fit.
    backbone = cnn_flax.create_model(
        "resnet18", width=16, features_only=True, out_stages=("stem", 1, 2, 3)
    )
    model = make(backbone)
    iou = evaluate(model, train(model, steps))
    print(f"mean IoU on digits that it has not seen: {100 * iou:.1f} %")
