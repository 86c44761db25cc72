"""The contents of a run's `config.json`, and the model that follows from it."""

import importlib.metadata
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
from cnn_flax.registry import registration
from train.config import Config, Parallelism
from train.config_file import config_to_json
from train.data import Source
from train.data.label_shards import read_folder
from train.data.pseudo_label_file import read_header
from train.errors import UserError
from train.learn.inputs import eval_inputs
from train.learn.parallel import choose_devices

__all__ = [
    "build_model",
    "check_pseudo_labels",
    "describe",
    "environment_changes",
    "is_multi_label",
    "machine",
    "pixel_inputs",
    "reduce_batch_norm_over",
    "require_one_class",
    "run_step_identity",
    "step_identity",
    "versions",
]

Json = dict[str, Any]

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")


def describe(config: Config, recipe: str, source: Source) -> Json:
    """Everything that is needed to rebuild a run's model and to distinguish runs.

    Args:
      config: the run's config.
      recipe: name of its recipe.
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
        **({"multi_label": True} if source.multi_label else {}),
        **_pseudo_labels(config.unlabelled.pseudo_labels),
        "versions": versions(),
        "machine": machine(config.parallelism),
    }


def build_model(record: Json) -> nn.Module:
    """The model of a run.

    Raises:
      UserError: if the model does not exist, or does not have the fields.
    """
    model = record["model"]
    narrow = jnp.result_type(float) != jnp.float64
    if model["fields"].get("dtype") == "float64" and narrow:
        raise UserError("--dtype float64 needs the environment's JAX_ENABLE_X64=1.")
    try:
        return cnn_flax.create_model(model["name"], **model["fields"])
    except (TypeError, ValueError) as error:
        raise UserError(str(error)) from error


def step_identity(step: str, name: str, **facts: Any) -> dict[str, Any] | None:
    """What a step follows from, other than shapes, for the cache of steps.

    Args:
      step: what the step does, in a word.
      name: the model's name in the registry.
      **facts: all else that the step is made from, in JSON's types.

    Returns:
      The facts together; None if the model's code is not this library's, since it may
      then change without notice.
    """
    if not registration(name).factory.__module__.startswith("cnn_flax.models."):
        return None
    return {"step": step, "name": name, **facts}


def run_step_identity(step: str, record: Json, **facts: Any) -> dict[str, Any] | None:
    """`step_identity` of a step of inference with a run's model."""
    model, images = record["model"], record["input"]
    inputs = [images["mean"], images["std"]]
    if is_multi_label(record):
        facts["multi_label"] = True
    fields = model["fields"]
    return step_identity(step, model["name"], fields=fields, input=inputs, **facts)


def is_multi_label(record: Json) -> bool:
    """Whether a run has learned several classes per image."""
    return record.get("multi_label", False)


def require_one_class(run: Path, record: Json) -> None:
    """Raises `UserError` if a run whose labels are wanted has several per image."""
    if is_multi_label(record):
        raise UserError(
            f"{run} has learned several classes per image: it labels no images for "
            "others. `predict` classifies files with it."
        )


def reduce_batch_norm_over(model: nn.Module, axis: str | None) -> nn.Module:
    """The model with its batch statistics reduced over a mapped axis.

    The axis is not in a run's record: it says where the model runs, not what it is.
    """
    return model.clone(bn_axis_name=axis) if hasattr(model, "bn_axis_name") else model


def pixel_inputs(record: Json) -> partial[jax.Array]:
    """The run's preprocessing in evaluation, as a function of `uint8` pixels."""
    return partial(
        eval_inputs, mean=record["input"]["mean"], std=record["input"]["std"]
    )


def check_pseudo_labels(old: Json, new: Json) -> None:
    """Raises `UserError` if a run would be resumed with another teacher's labels."""
    name = "pseudo_labels"
    if old.get(name) == new.get(name):
        return
    was, now = ({**record[name], "shards": ""} for record in (old, new))
    if was == now:
        raise UserError(
            f"{new['config']['unlabelled']['unlabelled']} are other shards than when "
            "the run began, or their labels have another --top or other unreadable "
            "images: with the same ones it can be resumed."
        )
    raise UserError(
        f"{new['config']['unlabelled'][name]} has labels from another teacher than "
        "when the run began: step {step} of {run} then, ".format(**old[name])
        + "step {step} of {run} now.".format(**new[name])
    )


def environment_changes(old: Json, new: Json) -> list[str]:
    """One line for each version and each property of the machine that has changed."""
    return [
        f"{name} was {was} when the run began, and is {new[group].get(name)} now: "
        "the numbers may differ from those of an uninterrupted run."
        for group in ("versions", "machine")
        for name, was in old[group].items()
        if new[group].get(name) != was
    ]


def versions() -> dict[str, str]:
    """Versions of the software that a run's numbers depend on."""
    return {
        "python": platform.python_version(),
        "cnn-flax": cnn_flax.__version__,
        **{name: importlib.metadata.version(name) for name in _PACKAGES},
    }


def machine(parallelism: Parallelism) -> Json:
    """The hardware that a run's numbers depend on: it decides the order of sums."""
    devices = choose_devices(parallelism.device_count)
    return {
        "device": devices[0].device_kind,
        "devices": len(devices),
        "processes": jax.process_count(),
        "parallel": parallelism.parallel,
        "cores": os.cpu_count(),
    }


def _pseudo_labels(path: str) -> Json:
    """The teacher of a file of pseudo-labels: the file may have changed on resuming."""
    if path and Path(path).is_dir():
        header = read_folder(Path(path))
    else:
        header = read_header(Path(path)) if path else None
    if header is None:
        return {}
    return {"pseudo_labels": {k: header[k] for k in ("run", "step", "teacher")}}


def _per_channel(name: str, values: Sequence[float], channels: int) -> list[float]:
    if len(values) not in (1, channels):
        raise UserError(
            f"--{name} must be one value or {channels}, one per channel of the images; "
            f"got {len(values)}."
        )
    return list(values) * (channels if len(values) == 1 else 1)
