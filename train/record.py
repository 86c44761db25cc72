"""What `config.json` says of a run, and the model that follows from it."""

import importlib.metadata
import itertools
import os
import platform
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

import cnn_flax
from train.config import Config, Devices, config_to_json
from train.data import Source
from train.errors import UserError
from train.inputs import eval_inputs
from train.parallel import choose_devices
from train.pseudo_labels import read_header

__all__ = [
    "build_model",
    "changes",
    "check_classes",
    "check_pseudo_labels",
    "describe",
    "machine",
    "over_axis",
    "pixel_inputs",
    "versions",
]

Json = dict[str, Any]

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")


def describe(config: Config, recipe: str, source: Source) -> Json:
    """All that is needed to build a run's model again, and to tell runs apart.

    Args:
      config: the run's.
      recipe: the name of the recipe that it is of.
      source: its training images.
    """
    channels = source.channels
    return {
        "format": 1,
        "recipe": recipe,
        "config": config_to_json(config),
        "model": {
            "name": config.network.model,
            "fields": {
                "num_classes": len(source.class_names),
                "dtype": config.network.dtype,
                **config.network.model_fields,
            },
        },
        "input": {
            "image_size": config.input.image_size,
            "channels": channels,
            "mean": _per_channel("mean", config.input.mean, channels),
            "std": _per_channel("std", config.input.std, channels),
        },
        "class_names": list(source.class_names),
        **_pseudo_labels(config.unlabelled.pseudo_labels),
        "versions": versions(),
        "machine": machine(config.spread),
    }


def build_model(record: Json) -> nn.Module:
    """The model of a run.

    Raises:
      UserError: if there is no such model, or it has no such fields.
    """
    model = record["model"]
    narrow = jnp.result_type(float) != jnp.float64
    if model["fields"].get("dtype") == "float64" and narrow:
        raise UserError("--dtype float64 needs the environment's JAX_ENABLE_X64=1.")
    try:
        return cnn_flax.create_model(model["name"], **model["fields"])
    except (TypeError, ValueError) as error:
        raise UserError(str(error)) from error


def over_axis(model: nn.Module, axis: str | None) -> nn.Module:
    """The same model, its batch statistics taken over a mapped axis too.

    It is not part of a run's record: it says where the model runs, not what it is.
    """
    return model.clone(bn_axis_name=axis) if hasattr(model, "bn_axis_name") else model


def pixel_inputs(record: Json) -> partial[jax.Array]:
    """What the run's model is given in evaluation: a function of `uint8` pixels."""
    return partial(
        eval_inputs, mean=record["input"]["mean"], std=record["input"]["std"]
    )


def check_classes(record: Json, source: Source) -> None:
    """Raises `UserError` where a source has other classes than a run."""
    pairs = itertools.zip_longest(record["class_names"], source.class_names)
    for k, (ours, theirs) in enumerate(pairs):
        if ours != theirs:
            raise UserError(
                f"The classes of {source.spec} are not the run's: class {k} is "
                f"{theirs or 'missing'} there and {ours or 'missing'} in the run."
            )


def check_pseudo_labels(before: Json, now: Json) -> None:
    """Raises `UserError` where a run would go on with another teacher's labels."""
    name = "pseudo_labels"
    if before.get(name) != now.get(name):
        raise UserError(
            f"{now['config']['unlabelled'][name]} has labels by another teacher than "
            "when the run began: by step {step} of {run} then, ".format(**before[name])
            + "by step {step} of {run} now.".format(**now[name])
        )


def changes(before: Json, now: Json) -> list[str]:
    """A line for each version and part of the machine that is another than before."""
    return [
        f"{name} was {was} when the run began, and is {now[group].get(name)} now: "
        "the numbers may differ from an undisturbed run's."
        for group in ("versions", "machine")
        for name, was in before[group].items()
        if now[group].get(name) != was
    ]


def _pseudo_labels(path: str) -> Json:
    """Who gave them: a file may be another one when the run goes on."""
    header = read_header(Path(path)) if path else None
    if header is None:
        return {}
    return {"pseudo_labels": {k: header[k] for k in ("run", "step", "teacher")}}


def versions() -> dict[str, str]:
    """Versions of what a run's numbers depend on."""
    return {
        "python": platform.python_version(),
        "cnn-flax": cnn_flax.__version__,
        **{name: importlib.metadata.version(name) for name in _PACKAGES},
    }


def machine(spread: Devices) -> Json:
    """What else they depend on: another count of either sums in another order."""
    devices = choose_devices(spread.devices)
    return {
        "device": devices[0].device_kind,
        "devices": len(devices),
        "parallel": spread.parallel,
        "cores": os.cpu_count(),
    }


def _per_channel(name: str, values: Sequence[float], channels: int) -> list[float]:
    if len(values) not in (1, channels):
        raise UserError(
            f"--{name} must be one number or {channels}, one a channel of the images; "
            f"got {len(values)}."
        )
    return list(values) * (channels if len(values) == 1 else 1)
