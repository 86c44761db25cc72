"""Computes values and gradients on one device and on four; prints the differences.

A program of its own, because the number of simulated devices is set as JAX starts.
"""

import json
import sys

import jax
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from tests.support.formulations import FORMULATIONS, draw

KINDS = ("all-reduce", "all-gather", "all-to-all", "collective-permute")


def run(operation, arguments, devices):
    """Value and gradients with x split, and the compiled program's text."""
    mesh = jax.make_mesh((len(devices),), ("data",), (AxisType.Auto,), devices=devices)
    split = NamedSharding(mesh, PartitionSpec("data"))
    whole = NamedSharding(mesh, PartitionSpec())

    def both(*arguments):
        y, vjp = jax.vjp(operation, *arguments)
        return y, vjp(jax.tree.map(jax.numpy.sin, y))

    placed = [
        jax.device_put(x, split if i == 0 else whole) for i, x in enumerate(arguments)
    ]
    compiled = jax.jit(both).lower(*placed).compile()
    return jax.device_get(compiled(*placed)), compiled.as_text()


def main():
    report = {}
    for name, (operation, _, shapes) in FORMULATIONS.items():
        arguments = draw(shapes)
        expected, _ = run(operation, arguments, jax.devices()[:1])
        found, text = run(operation, arguments, jax.devices())
        pairs = zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True)
        report[name] = {
            "difference": max(float(np.abs(a - b).max()) for a, b in pairs),
            "collectives": [kind for kind in KINDS if kind in text],
        }
    json.dump(report, sys.stdout)


if __name__ == "__main__":
    main()
