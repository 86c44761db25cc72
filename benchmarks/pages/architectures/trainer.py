"""Trains and tests a small net on images in memory."""

import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import linen as nn

from train.config import Optimization
from train.data.open_source import Split, open_source
from train.learn.optimizer import make_optimizer, make_schedule
from train.learn.step import create_state, make_eval_step, make_train_step
from train.learn.supervised import supervised

__all__ = ["Images", "Trainer", "digits"]

_BATCH = 64


class Images(NamedTuple):
    """Images and their labels.

    Attributes:
      image: float32 `[N, H, W, 1]` in [0, 1].
      label: int32 `[N]`.
    """

    image: np.ndarray
    label: np.ndarray


def digits(split: Split) -> Images:
    """scikit-learn's digits of 8 x 8 px: 1,438 in "train", 359 in "test"."""
    source = open_source("digits", split)
    assert source.images is not None
    return Images((source.images / 255).astype(np.float32), source.labels)


class Trainer:
    """Trains a net from any number of seeds after compiling it once."""

    def __init__(self, model: nn.Module, epochs: int, learning_rate: float = 0.1):
        """Uses SGD with Nesterov momentum 0.9, cosine decay and weight decay 5e-4.

        Args:
          model: returns logits `[N, 10]`.
          epochs: passes over the training images; the first is the warm-up.
          learning_rate: its peak.
        """
        self.model = model
        self.epochs = epochs
        self.options = Optimization(
            learning_rate=learning_rate, warmup_epochs=1, weight_decay=5e-4
        )
        # The digits' mean and standard deviation.
        self._scale = lambda image: (image - 0.305) / 0.376
        self._eval_step = jax.jit(make_eval_step(model, self._scale))
        self._compiled: Any = None

    def _compile(self, steps_per_epoch):
        schedule = make_schedule(
            self.options, steps_per_epoch, self.epochs * steps_per_epoch
        )
        tx = make_optimizer(self.options, schedule)
        step = make_train_step(
            supervised(self.model),
            tx,
            lambda keys, batch, key: {**batch, "image": self._scale(batch["image"])},
        )
        return tx, jax.jit(step, donate_argnums=0)

    def run(
        self, train: Images, tests: Mapping[str, Images], seed: int
    ) -> dict[str, Any]:
        """Trains from a seed and tests.

        Returns:
          `loss`: mean training loss of each epoch, in nats; `accuracy`: of the trained
          net, by name of the test; `seconds`.
        """
        start = time.perf_counter()
        per_epoch = len(train.label) // _BATCH
        if self._compiled is None:
            self._compiled = self._compile(per_epoch)
        tx, step = self._compiled
        key = jax.random.key(seed)
        state = create_state(self.model, tx, train.image.shape[1:], key)
        losses = []
        for epoch in range(self.epochs):
            order = np.random.default_rng([seed, epoch]).permutation(len(train.label))
            total = 0.0
            for rows in order[: per_epoch * _BATCH].reshape(-1, _BATCH):
                batch = {
                    "image": train.image[rows],
                    "label": train.label[rows],
                    "index": np.arange(_BATCH),
                }
                state, metrics = step(state, batch, key)
                total += float(metrics["loss"])
            losses.append(total / per_epoch)
        accuracy = {
            name: self._accuracy(state.variables, test) for name, test in tests.items()
        }
        seconds = time.perf_counter() - start
        return {"loss": losses, "accuracy": accuracy, "seconds": round(seconds, 1)}

    def _accuracy(self, variables, test: Images) -> float:
        batch = {
            "image": test.image,
            "label": test.label,
            "mask": np.ones(len(test.label)),
        }
        correct = self._eval_step(variables, batch)["rank"] == 0
        return float(np.mean(correct))
