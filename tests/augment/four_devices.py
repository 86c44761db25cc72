"""Augments a batch on one device and on four; prints their largest difference.

It runs in its own process, because JAX fixes the number of simulated devices at start.
"""

import json
import re
import sys
from functools import partial

import jax
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from cnn_flax import augment
from tests.support.random_operations import RANDOM, SHAPE

# Every operation alone, and two runs that fuse.
CHAIN = [
    *(operation for name, operation in RANDOM.items() if name != "gaussian_noise"),
    augment.equalize,
    augment.autocontrast,
    partial(augment.adjust_contrast, factor=0.8),
    augment.invert,
    RANDOM["gaussian_noise"],
]


def main():
    images = jax.random.uniform(jax.random.key(0), (8, *SHAPE))
    keys = jax.random.split(jax.random.key(1), 8)
    augmentation = augment.compose(CHAIN)

    def run(devices):
        mesh = jax.make_mesh(
            (len(devices),), ("data",), (AxisType.Auto,), devices=devices
        )
        split = NamedSharding(mesh, PartitionSpec("data"))
        step = jax.jit(
            lambda keys, images: augmentation(keys, images)[0],
            in_shardings=split,
            out_shardings=split,
        )
        compiled = step.lower(keys, images).compile()
        put = jax.device_put((keys, images), split)
        return np.asarray(compiled(*put)), compiled.as_text()

    whole, _ = run(jax.devices()[:1])
    parts, text = run(jax.devices())
    kinds = ("all-reduce", "all-gather", "all-to-all", "collective-permute")
    report = {
        "devices": len(jax.devices()),
        "difference": float(np.abs(whole - parts).max()),
        # `materialize` reduces one boolean, which is not an image.
        "collectives": [
            line.strip()
            for line in text.splitlines()
            if re.search(rf" ({'|'.join(kinds)})[a-z-]*\(", line)
            and not re.search(r"= pred\[\] all-reduce\(", line)
        ],
    }
    json.dump(report, sys.stdout)


if __name__ == "__main__":
    main()
