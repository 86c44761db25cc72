"""Programs of our models and of plain Flax, for worker processes.

Each function returns a program and information about it. Compiled programs are cached
in `JAX_COMPILATION_CACHE_DIR`, if it is set.
"""

import os
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from flax import traverse_util

import cnn_flax
from benchmarks.plain_flax import plain_flax
from benchmarks.timing import repeated
from benchmarks.worker_process import Program
from cnn_flax.prediction import in_parts
from train.compilation_cache import use_compilation_cache
from train.config import Augment
from train.learn.inputs import train_inputs
from train.learn.step import create_state, make_train_step
from train.learn.supervised import supervised

__all__ = [
    "copy",
    "inference",
    "matrix_product",
    "stepping",
    "training",
    "training_step",
]

if "JAX_COMPILATION_CACHE_DIR" in os.environ:
    use_compilation_cache()

_Info = dict[str, Any]


def inference(
    model: str,
    fields: Mapping[str, Any],
    batch_size: int,
    image_size: int,
    dtype: str,
    plain: bool = False,
    parts: bool = False,
) -> tuple[Program, _Info]:
    """Logits of a model with folded BatchNorms, or of plain Flax.

    Args:
      model: name in the registry.
      fields: of the model.
      batch_size: images per step.
      image_size: height and width, in pixels.
      dtype: of the computation.
      plain: whether the model has Flax's layers.
      parts: whether to compute a few images at a time, as `python -m train evaluate`
        does on a CPU.
    """
    net = _network(model, fields, dtype)
    images = _images(batch_size, image_size)
    variables = _variables(net, images)
    if not plain:
        net, variables = cnn_flax.fold_batch_norm(net, variables)

    def predict(variables, images):
        apply: Any = net.apply
        if parts:
            return in_parts(apply, variables, images)
        return apply(variables, images)

    compiled = jax.jit(_in_context(predict, plain))
    return repeated(partial(compiled, variables, images)), {}


def training(
    model: str,
    fields: Mapping[str, Any],
    batch_size: int,
    image_size: int,
    dtype: str,
    plain: bool = False,
    augmented: bool = False,
) -> tuple[Program, _Info]:
    """Training steps of `python -m train`, with SGD and momentum.

    Args:
      model: name in the registry.
      fields: of the model.
      batch_size: images per step.
      image_size: height and width that the model sees, in pixels.
      dtype: of the computation.
      plain: whether the model has Flax's layers.
      augmented: whether the step crops and flips `uint8` images at random; otherwise
        the images are floats that the model takes unchanged.
    """
    net = _network(model, fields, dtype)
    step, state, batch = training_step(net, batch_size, image_size, augmented=augmented)
    step = jax.jit(_in_context(step, plain), donate_argnums=0)
    key = jax.random.key(1)
    return stepping(step, state, batch, key), {}


def stepping(step: Callable[..., Any], state: Any, batch: Any, key: Any) -> Program:
    """Runs steps, each from the state of the one before.

    Args:
      step: returns the next state and metrics; it may donate the state's memory.
      state: the first state.
      batch: the batch of every step.
      key: the key of every step.
    """
    states = [state]

    def run(calls: int) -> None:
        for _ in range(calls):
            state, metrics = step(states.pop(), batch, key)
            states.append(state)
        jax.block_until_ready((states, metrics))

    return run


def training_step(
    net: nn.Module,
    batch_size: int,
    image_size: int,
    axis: str | None = None,
    augmented: bool = False,
) -> tuple[Callable[..., Any], Any, dict[str, jax.Array]]:
    """Returns a step, not compiled, its first state and a batch.

    Args:
      net: the model.
      batch_size: images per step.
      image_size: height and width, in pixels.
      axis: the mapped axis of the batch under `jax.pmap`, else None.
      augmented: see `training`.
    """
    tx = optax.sgd(1e-3, momentum=0.9)
    shape = (image_size, image_size, 3)

    @jax.jit
    def initialize(initial: Any) -> Any:
        return create_state(net, tx, shape, jax.random.key(0), initial=initial)

    state = initialize(_variables(net, jnp.zeros((1, *shape))))
    prepare, images = _unchanged, _images(batch_size, image_size)
    if augmented:
        augment = Augment(crop_scale=0.08, flip=0.5)
        mean, std = (0.5,) * 3, (0.25,) * 3
        prepare = train_inputs(augment, mean=mean, std=std, size=image_size)
        images = _images(batch_size, round(image_size * 256 / 224), np.uint8)
    step = make_train_step(supervised(net, axis=axis), tx, prepare, axis=axis)
    batch = {
        "image": images,
        "label": jnp.arange(batch_size) % 10,
        "index": jnp.arange(batch_size),
    }
    return step, state, batch


def matrix_product(size: int, dtype: str) -> tuple[Program, _Info]:
    """A product of square matrices: the device's peak rate of operations."""
    rng = np.random.default_rng(0)
    a = jnp.asarray(rng.standard_normal((size, size), np.float32), dtype)
    return repeated(partial(jax.jit(jnp.matmul), a, a)), {"flops": 2 * size**3}


def copy(megabytes: int) -> tuple[Program, _Info]:
    """Reading one array and writing another: the memory's peak bandwidth."""
    x = jnp.zeros((megabytes, 250_000), jnp.float32)
    return repeated(partial(jax.jit(jnp.negative), x)), {"bytes": 2 * x.nbytes}


def _network(model: str, fields: Mapping[str, Any], dtype: str) -> nn.Module:
    return cnn_flax.create_model(model, dtype=jnp.dtype(dtype), **fields)


def _variables(net: nn.Module, images: jax.Array) -> Any:
    """Random variables as at initialization, without compiling a program for it."""
    rng = np.random.default_rng(0)

    def fill(path: tuple[Any, ...], leaf: Any) -> jax.Array:
        # The offsets of a deformable convolution are zero at initialization.
        if path[-1] == "kernel" and "offset" not in path:
            values = rng.standard_normal(leaf.shape, np.float32)
            values *= np.sqrt(2 / np.prod(leaf.shape[:-1]))
        else:
            values = np.full(leaf.shape, float(path[-1] in ("scale", "var")))
        return jnp.asarray(values, leaf.dtype)

    shapes: Any = jax.eval_shape(net.init, jax.random.key(0), images)
    return traverse_util.path_aware_map(fill, shapes)


def _images(batch_size: int, image_size: int, dtype: Any = np.float32) -> jax.Array:
    shape, rng = (batch_size, image_size, image_size, 3), np.random.default_rng(0)
    if dtype == np.uint8:
        return jnp.asarray(rng.integers(0, 256, shape, np.uint8))
    return jnp.asarray(rng.standard_normal(shape, dtype))


def _in_context(function: Callable[..., Any], plain: bool) -> Callable[..., Any]:
    if not plain:
        return function

    def traced(*args: Any) -> Any:
        with plain_flax():
            return function(*args)

    return traced


def _unchanged(keys: Any, batch: dict[str, jax.Array], key: jax.Array) -> Any:
    del keys, key
    return batch
