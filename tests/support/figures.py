"""Figures measured on torchvision 0.29.1, timm 1.0.31 and torch, in float64.

`tests/reference/models/NAME.json` holds parameter count, checkpoint entries with their
shapes and one training pass; `NAME.npz` evaluation-mode logits. Weights follow from an
entry's name and shape, so that no weights need to be stored.
"""

import json
import math
import pathlib
import zlib

import numpy as np

REFERENCE = pathlib.Path(__file__).parents[1] / "reference"


def model_figures(name):
    """Everything in `NAME.json`, with the arrays of `NAME.npz` under "logits"."""
    figures = json.loads((REFERENCE / "models" / f"{name}.json").read_text())
    with np.load(REFERENCE / "models" / f"{name}.npz") as logits:
        figures["logits"] = {
            tuple(int(n) for n in key.removeprefix("logits_").split("x")): logits[key]
            for key in logits.files
        }
    return figures


def seeded_weight(name, shape):
    """The float32 weight that the figures were measured with."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    if name.endswith("running_mean") or name.endswith("bias"):
        value = 0.1 * rng.standard_normal(shape)
    elif name.endswith("running_var") or len(shape) == 1:
        value = rng.uniform(0.5, 1.5, shape)
    else:
        value = rng.standard_normal(shape) * math.sqrt(1.5 / math.prod(shape[1:]))
    return value.astype(np.float32)


def seeded_state_dict(shapes):
    """A checkpoint of seeded weights in torch's names and layouts."""
    return {name: seeded_weight(name, tuple(shape)) for name, shape in shapes.items()}


def images(n, height, width, seed=0):
    """Float32 `[n, height, width, 3]`, the same values as the figures' NCHW."""
    nchw = np.random.default_rng(seed).standard_normal((n, 3, height, width))
    return np.ascontiguousarray(nchw.astype(np.float32).transpose(0, 2, 3, 1))
