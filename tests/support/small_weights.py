"""Variables of a small ResNet, and a run that holds them."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from flax import traverse_util

from cnn_flax.weights.variables import variable_shapes

__all__ = ["SMALL", "random_variables", "save_run"]

# A small net: one stage of one block, 8 channels.
SMALL = {"width": 8, "stage_sizes": (1,)}


def random_variables(name="resnet18", in_channels=3, num_classes=5, **fields):
    rng = np.random.default_rng(0)
    shapes = variable_shapes(
        name, {**SMALL, "num_classes": num_classes, **fields}, in_channels, 16
    )
    flat = {p: rng.random(x.shape).astype(np.float32) for p, x in shapes.items()}
    return traverse_util.unflatten_dict(flat, sep="/")


def save_run(folder, variables, steps=(3,), **changes):
    record = {
        "format": 1,
        "recipe": "digits",
        "config": {},
        "model": {
            "name": "resnet18",
            "fields": {**SMALL, "num_classes": 5, "dtype": "float32"},
        },
        "input": {"image_size": 16, "channels": 3, "mean": [0.5], "std": [0.5]},
        "class_names": list("abcde"),
    }
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({**record, **changes}))
    with ocp.CheckpointManager(folder / "checkpoints") as manager:
        for step in steps:
            scaled = jax.tree.map(lambda x, s=step: jnp.asarray(x) * s, variables)
            args = ocp.args.Composite(
                model=ocp.args.StandardSave(scaled),
                rest=ocp.args.StandardSave({"step": np.asarray(step)}),
                meta=ocp.args.JsonSave({}),
            )
            manager.save(step, args=args)
    return folder
