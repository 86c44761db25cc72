"""The page's experiments: small nets trained on scikit-learn's handwritten digits.

The digits come with the package, so that every machine has them.
"""

import math
from collections.abc import Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

import cnn_flax
from benchmarks.measurements import Row, read_lines, write_lines
from benchmarks.pages.architectures.trainer import Images, Trainer, digits
from benchmarks.pages.folders import MEASUREMENTS
from cnn_flax.layers import Conv, grid_sample, local_response_norm, max_pool
from cnn_flax.models.dcn import DeformResNet
from cnn_flax.models.densenet import DenseNet
from cnn_flax.models.resnet import BasicBlock, ResNet

__all__ = ["EXPERIMENTS", "PATH", "SEEDS", "measure", "read"]

PATH = MEASUREMENTS / "architectures.jsonl"

SEEDS = (0, 1, 2)
Rows = Iterator[Row]


def depth() -> Rows:
    """Plain against residual nets with the same parameters, at growing depth.

    The nets of He et al. 2015, section 4.2, at half the width: three stages of n blocks
    with BatchNorm, and shortcuts without parameters.
    """
    tests = {"test": digits("test")}
    for blocks in (1, 3, 5, 9):
        for name, shortcut in (("plain", "none"), ("residual", "zero_pad")):
            model = ResNet(
                (blocks,) * 3,
                BasicBlock,
                width=8,
                num_classes=10,
                small_inputs=True,
                shortcut=shortcut,
            )
            about = {"net": name, "depth": 6 * blocks + 2}
            yield from _runs(model, about, digits("train"), tests, epochs=15)


def dense() -> Rows:
    """Added against concatenated features.

    One DenseNet has about the parameters of the ResNet, the other about its
    multiply-adds.
    """
    common = {"num_classes": 10, "small_inputs": True}
    nets = {
        "added": ResNet((2, 2, 2), BasicBlock, width=8, **common),
        "concatenated, as many parameters": DenseNet((2, 2, 2), 12, 24, **common),
        "concatenated, as many multiply-adds": DenseNet((2, 2, 2), 7, 14, **common),
    }
    tests = {"test": digits("test")}
    for name, model in nets.items():
        yield from _runs(model, {"net": name}, digits("train"), tests, epochs=15)


class SmallNet(nn.Module):
    """Four 3x3 convolutions, each with a normalisation, two poolings and a head.

    Attributes:
      norm: "none", "LRN" (after the ReLU, as in AlexNet) or "BatchNorm" (before it).
    """

    norm: str

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """`[N, H, W, C] -> [N, 10]`."""
        for i, features in enumerate((16, 16, 32, 32)):
            x = Conv(features, (3, 3))(x)
            if self.norm == "BatchNorm":
                x = nn.BatchNorm(use_running_average=not train, momentum=0.9)(x)
            x = nn.relu(x)
            if self.norm == "LRN":
                x = local_response_norm(x)
            if i % 2:
                x = max_pool(x, 2, 2)
        return nn.Dense(10)(x.reshape(x.shape[0], -1))


def norm() -> Rows:
    """No normalisation, LRN and BatchNorm at three learning rates."""
    tests = {"test": digits("test")}
    for name in ("none", "LRN", "BatchNorm"):
        for rate in (0.01, 0.1, 1.0):
            about = {"net": name, "learning_rate": rate}
            yield from _runs(
                SmallNet(name), about, digits("train"), tests, epochs=10, rate=rate
            )


def deform() -> Rows:
    """Deformable against plain convolutions on rotated and shrunk digits.

    The digits are 16 px wide. In training, each occurs four times, rotated by up to 30
    degrees and scaled by 0.7 to 1 at random.
    """
    train, test = digits("train"), digits("test")
    four = Images(np.tile(train.image, (4, 1, 1, 1)), np.tile(train.label, 4))
    tests = {
        "as in training": _transformed(test, 30, 0.7, 1.0),
        "rotated by 45 to 60 degrees": _transformed(test, 60, 0.7, 1.0, least=45),
        "shrunk to 0.4 to 0.5": _transformed(test, 30, 0.4, 0.5),
    }
    common = {"width": 8, "num_classes": 10, "small_inputs": True}
    nets = {
        "plain": ResNet((1, 1, 1), BasicBlock, **common),
        "deformable (v1)": DeformResNet(
            (1, 1, 1), BasicBlock, deform_stages=(2, 3), modulated=False, **common
        ),
        "modulated (v2)": DeformResNet(
            (1, 1, 1), BasicBlock, deform_stages=(2, 3), **common
        ),
    }
    for name, model in nets.items():
        images = _transformed(four, 30, 0.7, 1.0)
        yield from _runs(model, {"net": name}, images, tests, epochs=8)


def _transformed(images: Images, degrees, smallest, largest, least=0) -> Images:
    """Resamples each image at 16 x 16 px with a random rotation and scale."""
    rng = np.random.default_rng(0)
    n = len(images.label)
    angle = np.radians(rng.uniform(least, degrees, n) * rng.choice([-1, 1], n))
    scale = rng.uniform(smallest, largest, n)
    cosine, sine = np.cos(angle) / scale, np.sin(angle) / scale
    centres = (2 * np.arange(16) + 1) / 16 - 1
    y, x = np.meshgrid(centres, centres, indexing="ij")
    grid = np.stack(
        [
            cosine[:, None, None] * x - sine[:, None, None] * y,
            sine[:, None, None] * x + cosine[:, None, None] * y,
        ],
        axis=-1,
    )
    sampled = grid_sample(jnp.asarray(images.image), jnp.asarray(grid, jnp.float32))
    return Images(np.array(sampled), images.label)


EXPERIMENTS = {e.__name__: e for e in (depth, dense, norm, deform)}


def read() -> dict[str, list[Row]]:
    """Reads the rows of each experiment, in the order of measurement."""
    rows: dict[str, list[Row]] = {name: [] for name in EXPERIMENTS}
    for row in read_lines(PATH):
        rows[row["experiment"]].append(row)
    return rows


def measure(names: Iterable[str]) -> None:
    """Runs experiments again; their new rows replace the old ones."""
    for name in names:
        older = read_lines(PATH) if PATH.exists() else []
        others = [row for row in older if row["experiment"] != name]
        measured = ({"experiment": name, **row} for row in EXPERIMENTS[name]())
        write_lines(PATH, map(_rounded, measured), others)


def _rounded(value: Any) -> Any:
    """Rounds floats to four digits; NaN and infinity, which JSON lacks, become None."""
    if isinstance(value, float):
        return float(f"{value:.4g}") if math.isfinite(value) else None
    if isinstance(value, list):
        return [_rounded(v) for v in value]
    if isinstance(value, dict):
        return {k: _rounded(v) for k, v in value.items()}
    return value


def _runs(model, about, train, tests, *, epochs, rate=0.1) -> Rows:
    """One row per seed."""
    height, width, channels = train.image.shape[1:]
    summary = cnn_flax.summary(model, (height, width), channels=channels)
    cost = {
        "parameters": summary.parameters,
        "multiply_adds": summary.multiply_adds,
    }
    trainer = Trainer(model, epochs, rate)
    for seed in SEEDS:
        yield {**about, "seed": seed, **cost, **trainer.run(train, tests, seed)}
