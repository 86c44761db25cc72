"""Inference at the speed of the machine: `cnn_flax.predict_fn`."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.core import Tracer
from jax.extend import core

from cnn_flax.analysis.jaxpr import bodies
from cnn_flax.fold import fold_batch_norm

__all__ = ["in_parts", "part_size", "predict_fn"]

Apply = Callable[[Any, jax.Array], jax.Array]

# With fewer bytes of activations, written and read, a part is too little work.
_LEAST_TRAFFIC = 96_000_000


def predict_fn(
    model: nn.Module,
    variables: Mapping[str, Any],
    *,
    prepare: Callable[[jax.Array], jax.Array] | None = None,
) -> Callable[[Any], jax.Array]:
    """Returns a compiled function of images alone, for inference.

    Each BatchNorm is folded into the convolution before it (`fold_batch_norm`). On a
    single CPU device a batch is computed a few images at a time, so that activations
    stay in the caches and their memory is used again; elsewhere it is computed whole.
    The size of a part follows from the net: it is the smallest power of two at which
    the activations (the outputs of convolutions and matrix products, each written and
    read once) have at least as many bytes as the variables, which each part reads anew,
    and at least 96 MB. A batch of up to two parts is computed whole. At 224 px in
    float32, ResNet-50, DenseNet-121 and EfficientNet-B0 take 2 images at a time,
    GoogLeNet 4, and VGG-16 and AlexNet up to 16 and 128 images whole.

    Each batch size is compiled once, with one exception: the first batch of a size
    below a compiled one is padded with zeros, and the padding's rows are cut off. The
    last, smaller batch of a data set is therefore not compiled; a size that comes a
    second time is.

    Args:
      model: one of the registry, or another module that returns one row per image,
        independent of the other images.
      variables: its variables; they are copied to the default device once.
      prepare: applied to the images in the compiled program, before the model, such as
        the normalisation of `uint8` pixels; None gives them to the model unchanged.

    Returns:
      A function of images `[N, H, W, C]`, NumPy's or JAX's, floats that are normalised
      as for the weights (`preprocess`) unless `prepare` does it. It returns logits
      `[N, K]`, equal to `model.apply(variables, images)` up to rounding. The images are
      not donated. It raises `ValueError` for images of another rank.

    Raises:
      TypeError: if `model` is not a module.

    Example:
      >>> model = cnn_flax.create_model("resnet18", num_classes=10, width=4)
      >>> variables = model.init(jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
      >>> predict = cnn_flax.predict_fn(model, variables)
      >>> predict(jnp.zeros((4, 32, 32, 3))).shape
      (4, 10)
    """
    model, folded = fold_batch_norm(model, variables)
    folded = jax.device_put(folded)

    def apply(variables, images):
        images = images if prepare is None else prepare(images)
        return jnp.asarray(model.apply(variables, images))

    @jax.jit
    def step(variables, images):
        return in_parts(apply, variables, images)

    compiled: dict[Any, set[int]] = {}
    padded: dict[Any, set[int]] = {}

    def predict(images):
        if np.ndim(images) != 4:
            raise ValueError(
                "Images are [N, H, W, C], got an array of shape "
                f"{list(np.shape(images))}; image[None] makes a batch of one image."
            )
        if isinstance(images, Tracer):  # The caller compiles.
            return step(folded, images)
        if not isinstance(images, jax.Array):
            images = np.asarray(images)
        count, kind = len(images), (images.shape[1:], images.dtype)
        sizes = compiled.setdefault(kind, set())
        once = padded.setdefault(kind, set())
        larger = [size for size in sizes if size > count]
        if larger and count not in sizes | once:
            once.add(count)
            return step(folded, _pad(images, min(larger)))[:count]
        sizes.add(count)
        return step(folded, images)

    return predict


def _pad(images: Any, count: int) -> Any:
    """The images, followed by black ones up to a number of images."""
    library = jnp if isinstance(images, jax.Array) else np
    rows = ((0, count - len(images)), (0, 0), (0, 0), (0, 0))
    return library.pad(images, rows)


def in_parts(function: Apply, variables: Any, images: jax.Array) -> jax.Array:
    """Applies a function to a few images at a time, on a single CPU device.

    There the activations of a part stay in the caches, and the next part reuses their
    memory, which the kernel is slow to allocate.

    Args:
      function: a function of variables and images `[n, H, W, C]`, for any n; returns
        one row per image, independent of the other images.
      variables: its variables.
      images: `[N, H, W, C]`.
    """
    if jax.default_backend() != "cpu" or jax.device_count() > 1:
        return function(variables, images)
    size = part_size(function, variables, images.shape[1:], images.dtype)
    if size is None or len(images) <= 2 * size:
        return function(variables, images)
    parts = len(images) // size
    done = parts * size
    rows = jax.lax.map(
        lambda part: function(variables, part),
        images[:done].reshape(parts, size, *images.shape[1:]),
    )
    rows = rows.reshape(done, *rows.shape[2:])
    if done == len(images):
        return rows
    return jnp.concatenate([rows, function(variables, images[done:])])


def part_size(
    function: Apply, variables: Any, shape: tuple[int, ...], dtype: Any
) -> int | None:
    """Images per part: see `predict_fn`. It traces, and computes nothing.

    Args:
      function: a function of variables and images `[n, H, W, C]`.
      variables: its variables.
      shape: (H, W, C) of an image.
      dtype: of the images.

    Returns:
      A power of two, or None if the function has no convolution or matrix product.
    """
    leaves, tree = jax.tree.flatten(variables)
    abstract = [jax.ShapeDtypeStruct(np.shape(x), jnp.result_type(x)) for x in leaves]
    image = jax.ShapeDtypeStruct((1, *shape), dtype)
    program = jax.make_jaxpr(function)(jax.tree.unflatten(tree, abstract), image)
    traffic = 2 * _product_bytes(program.jaxpr)  # Per image.
    if not traffic:
        return None
    read = sum(_bytes(x) for x in abstract)
    size = 1
    while size * traffic < max(read, _LEAST_TRAFFIC):
        size *= 2
    return size


def _product_bytes(program: core.Jaxpr) -> int:
    """Bytes of all outputs of convolutions and matrix products of a program."""
    total = 0
    for equation in program.eqns:
        if equation.primitive.name in ("conv_general_dilated", "dot_general"):
            total += sum(_bytes(variable.aval) for variable in equation.outvars)
        for body, times in bodies(equation):
            total += _product_bytes(body) * (1 if times is None else times)
    return total


def _bytes(array: Any) -> int:
    return array.size * array.dtype.itemsize
