"""Applies to each image only the branches that were drawn for it."""

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
    """Changes each image by the branches that were chosen for it, one after the other.

    On a CPU the images are worked off one by one, each by its branch alone; on other
    devices all images, and all branches, at once.

    Args:
      images: `[N, ...]`.
      branches: functions of one image and of one row of `drawn`, which keep the image's
        shape and dtype.
      chosen: places in `branches`, the first to be applied first, int `[N, L]`.
      drawn: arrays `[N, L, ...]`.
    """

    def one(image, chosen, drawn):
        def layer(image, row):
            return jax.lax.switch(row[0], branches, image, row[1]), None

        return jax.lax.scan(layer, image, (chosen, drawn))[0]

    def one_by_one(*arrays):
        return jax.lax.map(lambda rows: one(*rows), arrays)

    # A `switch` copies the image in and out: branch by branch it is changed in place.
    # That has no derivative, as nobody knows how often such a loop turns.
    @jax.custom_jvp
    def branch_by_branch(images, chosen, drawn):
        def layer(place, images):
            here = chosen[:, place]
            order = jnp.argsort(here)
            starts = jnp.searchsorted(here[order], jnp.arange(len(branches) + 1))
            for branch, start, end in zip(branches, starts, starts[1:], strict=False):

                def change(nth, images, branch=branch):
                    i = order[nth]
                    row = jax.tree.map(lambda array: array[i, place], drawn)
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
