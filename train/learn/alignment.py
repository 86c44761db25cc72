"""Distribution alignment: predictions as if their classes had other frequencies."""

import jax
import jax.numpy as jnp

__all__ = ["align"]


def align(
    logits: jax.Array, averages: jax.Array, wanted: jax.Array | None = None
) -> jax.Array:
    """`p * wanted / averages`, normalised to sum to 1, with p the softmax of logits.

    Berthelot et al. 2020, "ReMixMatch", https://arxiv.org/abs/1911.09785, section 3.1.

    Args:
      logits: `[N, K]`.
      averages: mean probability of each class in the model's predictions, `[K]`.
      wanted: the mean that they are to have, `[K]`; None for the uniform one.

    Returns:
      Probabilities `[N, K]`.
    """
    # The average of a class that is never predicted may underflow to 0.
    tiny = jnp.finfo(logits.dtype).tiny
    offsets = -jnp.log(jnp.maximum(averages, tiny))
    if wanted is not None:
        offsets += jnp.log(jnp.maximum(wanted, tiny))
    return jax.nn.softmax(logits + offsets[None])
