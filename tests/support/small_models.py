"""Small nets: variables made without compilation, and one compiled pass."""

from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import traverse_util


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
