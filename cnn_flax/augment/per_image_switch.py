"""Applies to each image the branches chosen for it."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

__all__ = ["switch_per_image"]


def switch_per_image(
    images: jax.Array,
    branches: Sequence[Callable[[jax.Array, Any], jax.Array]],
    chosen: jax.Array,
    drawn: Any,
) -> jax.Array:
    """Applies to each image the branches chosen for it, in sequence.

    On a CPU images are processed one by one, each by its branches only. Other devices
    compute all branches for all images.

    Args:
      images: `[N, ...]`.
      branches: functions of one image and one row of `drawn` that keep the image's
        shape and dtype.
      chosen: indices into `branches`, in the order of application, int `[N, L]`.
      drawn: arrays `[N, L, ...]`, the branches' arguments.
    """
    if len(images) == 0:
        return images  # There is no image to trace a branch on.

    def one(image, chosen, drawn):
        def layer(image, row):
            return jax.lax.switch(row[0], branches, image, row[1]), None

        return jax.lax.scan(layer, image, (chosen, drawn))[0]

    def one_by_one(*arrays):
        return jax.lax.map(lambda rows: one(*rows), arrays)

    # `switch` copies the image in and out; a loop per branch updates it in place. Its
    # trip count is dynamic, so that it has no derivative of its own.
    @jax.custom_jvp
    def branch_by_branch(images, chosen, drawn):
        def layer(step, images):
            current = chosen[:, step]
            order = jnp.argsort(current)
            starts = jnp.searchsorted(current[order], jnp.arange(len(branches) + 1))
            for branch, start, end in zip(branches, starts, starts[1:], strict=False):

                def change(nth, images, branch=branch):
                    i = order[nth]
                    row = jax.tree.map(lambda array: array[i, step], drawn)
                    image = branch(images[i], row)
                    return jax.lax.dynamic_update_index_in_dim(images, image, i, 0)

                images = jax.lax.fori_loop(start, end, change, images)
            return images

        return jax.lax.fori_loop(0, chosen.shape[1], layer, images)

    @branch_by_branch.defjvp
    def _(primals, tangents):
        return jax.jvp(one_by_one, primals, tangents)

    return jax.lax.platform_dependent(
        images, chosen, drawn, cpu=branch_by_branch, default=jax.vmap(one)
    )
