"""A loop in Flax Linen and Optax, with our model, augmentation and loss.

python examples/train_with_linen.py
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from flax.training.train_state import TrainState
from small_digits import FIELDS, digits

import cnn_flax
from cnn_flax import augment
from cnn_flax.losses import cross_entropy


class State(TrainState):
    """Flax's train state, with BatchNorm's statistics."""

    batch_stats: dict


def create_state(model: nn.Module, steps: int) -> State:
    """A state of random weights, for AdamW with a cosine schedule."""
    variables = model.init(jax.random.key(0), jnp.zeros((1, 8, 8, 1)))
    tx = optax.adamw(optax.cosine_decay_schedule(3e-3, steps))
    return State.create(apply_fn=model.apply, tx=tx, **variables)


@partial(jax.jit, donate_argnums=0)
def train_step(state: State, key: jax.Array, images: jax.Array, labels: jax.Array):
    """The next state, and the loss. The images are augmented on the device."""
    images = augment.random_crop(key, images, (8, 8), padding=1)

    def loss_of(params):
        logits, new = state.apply_fn(
            {"params": params, "batch_stats": state.batch_stats},
            images,
            train=True,
            mutable=["batch_stats"],
        )
        return cross_entropy(logits, labels, label_smoothing=0.1), new

    (loss, new), grads = jax.value_and_grad(loss_of, has_aux=True)(state.params)
    return state.apply_gradients(grads=grads, batch_stats=new["batch_stats"]), loss


def accuracy(state: State, images: np.ndarray, labels: np.ndarray) -> float:
    """The share of the images that are recognized."""
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    logits = jax.jit(state.apply_fn)(variables, images)
    return float(np.mean(np.asarray(logits).argmax(-1) == labels))


def main(steps: int = 200) -> None:
    """Trains, and prints the accuracy."""
    images, labels, *test = digits()
    state = create_state(cnn_flax.create_model("resnet18", **FIELDS), steps)
    rng = np.random.default_rng(0)
    for i in range(steps):
        rows = rng.choice(len(images), 64, replace=False)
        key = jax.random.fold_in(jax.random.key(1), i)
        state, _ = train_step(state, key, images[rows], labels[rows])
    print(f"accuracy {100 * accuracy(state, *test):.1f} %")


if __name__ == "__main__":
    main()
