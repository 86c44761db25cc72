"""Random choices of operations per image."""

from collections.abc import Callable, Sequence

import jax

from cnn_flax.augment.compose import compose
from cnn_flax.augment.fusion_registry import read_operation
from cnn_flax.augment.per_image_switch import switch_per_image
from cnn_flax.augment.prng import keys_per_image
from cnn_flax.layers.arguments import whole_number

__all__ = ["one_of", "some_of"]


def one_of(
    operations: Sequence[Callable[..., jax.Array]],
) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """Builds a random operation that applies one of several to each image."""
    return some_of(1, operations)


def some_of(
    k: int, operations: Sequence[Callable[..., jax.Array]]
) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """Builds a random operation that applies `k` of several to each image.

    Both the choice and the order are random.

    ```python
    few = some_of(2, [
        partial(random_rotation, degrees=15),
        partial(random_gaussian_blur, kernel_size=5),
        equalize,
    ])
    images = few(key, images)
    ```

    On a CPU images are processed one by one, each by its chosen operations only. Other
    devices compute all operations for all images; for a long list prefer a policy,
    whose operations are fused.

    Args:
      k: number of operations per image, drawn without replacement.
      operations: same as for `compose`, without mixing; each keeps the images' shape.

    Returns:
      A function of `key` (one, or one per image `[N]`) and `images` (float `[N, H, W,
      C]`) that returns images.

    Raises:
      ValueError: if there are fewer than `k` operations, or one mixes images.
    """
    k = whole_number("k", k, least=None)
    if not 1 <= k <= len(operations):
        raise ValueError(
            f"k must be in [1, {len(operations)}], the number of operations; got {k}."
        )
    for operation in operations:
        if read_operation(operation).mixes:
            raise ValueError("Mixing acts on the whole batch, not on single images.")

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
