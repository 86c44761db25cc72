import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from train.learn.objectives import REQUIRED_METRICS, accuracy, check_metrics
from train.learn.step import TrainState, make_train_step


def test_the_required_metrics_pass_with_or_without_others():
    metrics = {name: jnp.zeros(()) for name in REQUIRED_METRICS}
    check_metrics(metrics)
    check_metrics({**metrics, "agreement": jnp.zeros(())})


@pytest.mark.parametrize("missing", REQUIRED_METRICS)
def test_a_missing_metric_is_named(missing):
    metrics = {n: jnp.zeros(()) for n in (*REQUIRED_METRICS, "other") if n != missing}
    with pytest.raises(TypeError, match=f"this one lacks {missing}, and has .*other"):
        check_metrics(metrics)


def test_without_any_metric_all_are_named():
    with pytest.raises(TypeError, match="lacks loss and accuracy, and has none"):
        check_metrics({})


def test_a_step_refuses_an_objective_without_a_required_metric():
    def objective(params, state, batch, key):
        updates = {"batch_stats": {}, "method_state": None}
        return params.sum(), (updates, {"loss": params.sum()})

    tx, params = optax.sgd(0.1), jnp.ones(3)
    state = TrainState(jnp.zeros((), jnp.int32), params, {}, tx.init(params))
    step = make_train_step(objective, tx, lambda keys, batch, key: batch)
    with pytest.raises(TypeError, match="lacks accuracy"):
        jax.eval_shape(step, state, {"index": jnp.arange(2)}, jax.random.key(0))


def test_accuracy_takes_classes_and_probabilities():
    logits = jnp.array([[0.0, 1.0, 0.5], [2.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    labels = jnp.array([1, 0, 0])
    np.testing.assert_allclose(accuracy(logits, labels), 2 / 3)
    soft = 0.7 * jax.nn.one_hot(labels, 3) + 0.1
    np.testing.assert_allclose(accuracy(logits, soft), 2 / 3)
