"""Our model inside Equinox: a module whose leaves are the variables.

    pip install equinox
    python examples/train_with_equinox.py

`model.apply` is a pure function of variables and images, so any library of pytrees can
hold the variables. Here BatchNorm's statistics are a leaf of their own that no gradient
reaches: the step returns their new values.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from small_digits import FIELDS, digits

import cnn_flax
from cnn_flax.losses import cross_entropy


class Classifier(eqx.Module):
    """A model with its variables."""

    params: dict
    batch_stats: dict
    body: nn.Module = eqx.field(static=True)

    def __init__(self, body: nn.Module, key: jax.Array):
        variables = body.init(key, jnp.zeros((1, 8, 8, 1)))
        self.params, self.batch_stats = variables["params"], variables["batch_stats"]
        self.body = body

    def __call__(self, images: jax.Array) -> jax.Array:
        """Logits, in evaluation."""
        variables = {"params": self.params, "batch_stats": self.batch_stats}
        return self.body.apply(variables, images)

    def train(self, images: jax.Array) -> tuple[jax.Array, dict]:
        """Logits, and the statistics after this batch."""
        logits, new = self.body.apply(
            {"params": self.params, "batch_stats": self.batch_stats},
            images,
            train=True,
            mutable=["batch_stats"],
        )
        return logits, new["batch_stats"]


def main(steps: int = 200) -> None:
    """Trains, and prints the accuracy."""
    images, labels, test_images, test_labels = digits()
    body = cnn_flax.create_model("resnet18", **FIELDS)
    classifier = Classifier(body, jax.random.key(0))
    tx = optax.adamw(optax.cosine_decay_schedule(3e-3, steps))
    opt_state = tx.init(classifier.params)

    @eqx.filter_jit
    def step(classifier, opt_state, images, labels):
        def loss_of(params):
            trained = eqx.tree_at(lambda c: c.params, classifier, params)
            logits, statistics = trained.train(images)
            return cross_entropy(logits, labels, label_smoothing=0.1), statistics

        grads, statistics = jax.grad(loss_of, has_aux=True)(classifier.params)
        updates, opt_state = tx.update(grads, opt_state, classifier.params)
        new = optax.apply_updates(classifier.params, updates), statistics
        where = lambda c: (c.params, c.batch_stats)  # noqa: E731
        return eqx.tree_at(where, classifier, new), opt_state

    rng = np.random.default_rng(0)
    for _ in range(steps):
        rows = rng.choice(len(images), 64, replace=False)
        classifier, opt_state = step(classifier, opt_state, images[rows], labels[rows])
    predicted = eqx.filter_jit(classifier)(test_images).argmax(-1)
    print(f"accuracy {100 * np.mean(predicted == test_labels):.1f} %")


if __name__ == "__main__":
    main()
