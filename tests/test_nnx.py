"""Keeps the README's instructions for users of NNX true."""

import jax
import numpy as np
import pytest
from flax import nnx
from flax.nnx import bridge

import cnn_flax


def wrapped():
    fields = {"stage_sizes": (1,), "width": 8, "num_classes": 5, "dropout_rate": 0.1}
    model = cnn_flax.create_model("resnet18", **fields)
    images = jax.random.normal(jax.random.key(0), (2, 16, 16, 3))
    return bridge.ToNNX(model, rngs=nnx.Rngs(0, dropout=1)).lazy_init(images), images


@pytest.mark.slow
def test_a_wrapped_model_gives_logits():
    model, images = wrapped()
    logits = model(images)
    assert logits.shape == (2, 5)
    np.testing.assert_array_equal(logits, model(images))


@pytest.mark.slow
def test_a_wrapped_model_updates_its_statistics_in_place_in_training():
    model, images = wrapped()
    before = nnx.clone(nnx.state(model, nnx.BatchStat))
    logits = model(images, train=True, mutable=["batch_stats"])
    assert logits.shape == (2, 5)
    after = nnx.state(model, nnx.BatchStat)
    changed = jax.tree.map(lambda a, b: not np.array_equal(a, b), before, after)
    assert all(jax.tree.leaves(changed))
