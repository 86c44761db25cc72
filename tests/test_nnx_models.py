"""The models as NNX modules: equal to Linen's, and used as NNX users do."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import cnn_flax
from tests.support.small_models import random_variables
from tests.test_house import imports_of

FIELDS = {"stage_sizes": (1,), "width": 4, "num_classes": 5}


@pytest.fixture(scope="module")
def linen():
    model = cnn_flax.create_model("resnet18", **FIELDS)
    images = jax.random.normal(jax.random.key(0), (2, 16, 16, 3))
    return model, random_variables(model, *images.shape), images


def test_importing_the_library_does_not_import_nnx():
    root = Path(cnn_flax.__file__).parent
    eager = [
        path
        for path in root.rglob("*.py")
        if path.parent != root / "nnx"
        and any("nnx" in name.split(".") for name in imports_of(path))
    ]
    assert not eager


@pytest.mark.slow
def test_logits_and_a_training_step_are_linens_to_the_bit(linen):
    model, variables, images = linen
    m = cnn_flax.nnx.from_linen(model, variables)
    np.testing.assert_array_equal(
        nnx.jit(lambda m, x: m(x))(m, images), jax.jit(model.apply)(variables, images)
    )
    m.train()

    def nnx_loss(m, images):
        return jnp.square(m(images)).mean()

    def linen_loss(params):
        logits, new = model.apply(
            {**variables, "params": params}, images, train=True, mutable=["batch_stats"]
        )
        return jnp.square(logits).mean(), new

    grads = nnx.jit(nnx.grad(nnx_loss))(m, images)
    expected, new = jax.jit(jax.grad(linen_loss, has_aux=True))(variables["params"])
    jax.tree.map(np.testing.assert_array_equal, nnx.to_pure_dict(grads), expected)
    statistics = nnx.to_pure_dict(nnx.state(m, nnx.BatchStat))
    jax.tree.map(np.testing.assert_array_equal, statistics, new["batch_stats"])
    optimizer = nnx.Optimizer(m, optax.sgd(0.1), wrt=nnx.Param)
    optimizer.update(m, grads)
    m.eval()
    before = nnx.to_pure_dict(nnx.state(m, nnx.BatchStat))
    m(images)
    jax.tree.map(
        np.testing.assert_array_equal,
        nnx.to_pure_dict(nnx.state(m, nnx.BatchStat)),
        before,
    )


@pytest.mark.slow
def test_split_merge_and_a_replaced_head(linen):
    model, variables, images = linen
    m = nnx.merge(*nnx.split(cnn_flax.nnx.from_linen(model, variables)))
    m.head = nnx.Linear(4, 7, rngs=nnx.Rngs(0))
    assert m(images).shape == (2, 7)
    bare = model.clone(num_classes=0).apply(variables, images)
    np.testing.assert_allclose(m(images), m.head(bare), rtol=1e-6)


def test_a_created_model_has_linens_parameters():
    m = nnx.eval_shape(
        lambda: cnn_flax.nnx.create_model("resnet18", rngs=nnx.Rngs(0), **FIELDS)
    )
    model = cnn_flax.create_model("resnet18", **FIELDS)
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
    mine = nnx.to_pure_dict(nnx.state(m, nnx.Param))
    assert jax.tree.map(jnp.shape, mine) == jax.tree.map(jnp.shape, shapes["params"])
