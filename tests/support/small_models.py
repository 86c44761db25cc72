"""Small nets: the registered models cut down, variables, and one compiled pass."""

import json
from collections.abc import Iterable
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import traverse_util

import cnn_flax
from tests.support.figures import REFERENCE


def small_fields(name: str) -> dict[str, Any]:
    """Fields for few narrow blocks without noise, of those that the model has."""
    model = cnn_flax.create_model(name)
    small = {
        "num_classes": 5,
        "stage_sizes": (2, 1),
        # The paper's squeeze leaves a sixteenth; a single channel may be dead.
        "width": 64 if name.startswith("legacy") else 16,
        "groups": min(2, getattr(model, "groups", 1)),
        "width_per_group": 64,
        "deform_stages": (2,),
        "growth_rate": 4,
        "num_init_features": 8,
        "features": (8, 16, 16, 16, 16),
        "stage_features": (16, 24),
        "head_features": 32,
        "group_width": 8,
        "norm_groups": 4 if getattr(model, "norm_groups", None) else None,
        "hidden_features": 32,
        "fused_stages": ((8, 1, 3, 1, 1), (16, 1, 3, 2, 4)),
        "stages": ((16, 2, 3, 1, 1), (24, 1, 5, 2, 6)),
        "width_multiplier": 1.0,
        "depth_multiplier": 1.0,
        "bn_momentum": 0.9,
        "bn_epsilon": 1e-3,
        "dropout_rate": 0.0,
        "drop_path_rate": 0.0,
    }
    fields = type(model).__dataclass_fields__
    return {k: v for k, v in small.items() if k in fields}


def cut_down(name: str) -> Any:
    """The model without noise; with few narrow blocks if it has fields for that."""
    return cnn_flax.create_model(name, **small_fields(name))


# Each with its source; a new model goes under one of them, or under a new one.
COUNTS = {
    name: count
    for group in json.loads((REFERENCE / "parameter_counts.json").read_text())
    for name, count in group["parameters"].items()
}
# Those with the fewest parameters come last.
MODELS = sorted(cnn_flax.list_models(), key=lambda name: -COUNTS.get(name, 0))
# From each family to its model with the fewest parameters.
SMALLEST = {cnn_flax.model_info(name).family: name for name in MODELS}
# One model of each structure, the one with the fewest parameters.
STRUCTURES = {cut_down(name): name for name in MODELS}


def one_quick_per_family(names: Iterable[str]) -> list[Any]:
    """The names in order; all but each family's smallest model are slow."""
    return [
        name
        if name in SMALLEST.values()
        else pytest.param(name, marks=pytest.mark.slow)
        for name in sorted(names)
    ]


@cache
def variable_shapes(model: nn.Module, *shape: int) -> Any:
    """Shapes of the variables of a model for images of that shape."""
    images = jax.ShapeDtypeStruct(shape, jnp.float32)
    return jax.eval_shape(model.init, jax.random.key(0), images)


def random_variables(model: nn.Module, *shape: int) -> Any:
    """Variables of a model for images of that shape; no value is 0 or 1."""
    rng = np.random.default_rng(0)

    def fill(path, leaf):
        if path[-1] == "kernel":
            x = rng.standard_normal(leaf.shape)
            x *= np.sqrt(2 / np.prod(leaf.shape[:-1]))
        elif path[-1] in ("scale", "var"):
            x = rng.uniform(0.5, 1.5, leaf.shape)
        else:
            x = 0.1 * rng.standard_normal(leaf.shape)
        return jnp.asarray(x, leaf.dtype)

    return traverse_util.path_aware_map(fill, variable_shapes(model, *shape))


@partial(jax.jit, static_argnums=(0, 3))
def forward(
    model: nn.Module, variables: Any, images: Any, train: bool = False, seed: int = 0
) -> tuple[Any, dict[str, Any], Any]:
    """Logits, the intermediates by name, and the statistics after the pass."""
    logits, state = model.apply(
        variables,
        images,
        train=train,
        mutable=["batch_stats", "intermediates"],
        rngs={"dropout": jax.random.key(seed)},
    )
    features = {name: value for name, (value,) in state["intermediates"].items()}
    return logits, features, state.get("batch_stats", {})


def feature_shapes(
    model: nn.Module, *shape: int, train: bool = False
) -> dict[str, tuple[int, ...]]:
    """Shapes of the intermediates by name; nothing is computed."""
    images = jax.ShapeDtypeStruct(shape, jnp.float32)
    _, features, _ = jax.eval_shape(
        lambda v, x: forward(model, v, x, train),
        variable_shapes(model, *shape),
        images,
    )
    return {name: value.shape for name, value in features.items()}


def drop_path_rates(model: nn.Module, size: int = 8) -> dict[str, float]:
    """The rate of stochastic depth of each block that has some, in call order."""
    rates = {}

    def see(next_function, args, kwargs, context):
        if isinstance(context.module, cnn_flax.layers.DropPath):
            rates[context.module.path[0]] = context.module.rate
        return next_function(*args, **kwargs)

    with nn.intercept_methods(see):
        jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, size, size, 3)))
    return rates
