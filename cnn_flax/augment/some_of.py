"""A few operations at random, not all to everything."""

from collections.abc import Callable, Sequence

import jax

from cnn_flax.augment.compose import compose
from cnn_flax.augment.fusion_registry import read_operation
from cnn_flax.augment.per_image_switch import switch_per_image
from cnn_flax.augment.prng import keys_per_image

__all__ = ["one_of", "some_of"]


def one_of(
    operations: Sequence[Callable[..., jax.Array]],
) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """A random operation that does one of several to each image: see `some_of`."""
    return some_of(1, operations)


def some_of(
    k: int, operations: Sequence[Callable[..., jax.Array]]
) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """A random operation that does `k` of several to each image, in an order drawn too.

    ```python
    few = some_of(2, [
        partial(random_rotation, degrees=15),
        partial(random_gaussian_blur, kernel_size=5),
        equalize,
    ])
    images = few(key, images)
    ```

    On a CPU the images are worked off one by one, each by what it drew alone. Other
    devices compute all operations for all images: for many of them take a policy, whose
    operations are fused.

    Args:
      k: how many, each at most once.
      operations: as those of `compose`, without mixing; each keeps the images' shape.

    Returns:
      A function of `key` (one, or one an image `[N]`) and `images` (float `[N, H, W,
      C]`) that returns images.

    Raises:
      ValueError: if there are not so many operations, or one mixes images.
    """
    if not 1 <= k <= len(operations):
        raise ValueError(
            f"k must be in [1, {len(operations)}], the operations; got {k}."
        )
    for operation in operations:
        if read_operation(operation).mixes:
            raise ValueError("Images are mixed all together, not one by one.")

    def alone(operation):
        augmentation = compose([operation])
        return lambda image, key: augmentation(key[None], image[None])[0][0]

    branches = [alone(operation) for operation in operations]

    def draw(key):
        key_order, key_rest = jax.random.split(key)
        order = jax.random.permutation(key_order, len(branches))
        return order[:k], jax.random.split(key_rest, k)

    def some(key: jax.Array, images: jax.Array) -> jax.Array:
        chosen, keys = jax.vmap(draw)(keys_per_image(key, images))
        return switch_per_image(images, branches, chosen, keys)

    return some
