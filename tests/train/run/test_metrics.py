import json
import math

import jax.numpy as jnp
import pytest

from train.errors import NotFiniteError
from train.run.metrics import Meter


def metrics(loss):
    return {"loss": jnp.float32(loss), "accuracy": jnp.float32(0.5)}


def test_a_line_is_the_mean_since_the_last_one():
    meter = Meter(batch_size=10)
    for step, loss in enumerate([1, 2, 3], start=1):
        meter.add(step, metrics(loss))
    line = meter.line()
    assert (line["loss"], line["accuracy"]) == (2, 0.5)
    assert line["images_per_second"] > 0
    meter.add(4, metrics(7))
    assert meter.line()["loss"] == 7
    assert meter.images == 40


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_the_first_step_that_is_not_finite_is_named(value):
    meter = Meter(batch_size=1)
    for step, loss in ((7, 1.0), (8, value), (9, math.nan)):
        meter.add(step, metrics(loss))
    with pytest.raises(NotFiniteError, match=f"The loss of step 8 is {value}") as error:
        meter.settle()
    assert error.value.step == 8


def test_a_meter_that_was_saved_goes_on_to_the_bit():
    losses = [1 / 3, 0.1, 1e-7, 2.0, 1 / 7]
    whole, first = Meter(4), Meter(4)
    for step, loss in enumerate(losses, start=1):
        whole.add(step, metrics(loss))
    for step, loss in enumerate(losses[:2], start=1):
        first.add(step, metrics(loss))
    second = Meter(4, json.loads(json.dumps(first.settle())))
    for step, loss in enumerate(losses[2:], start=3):
        second.add(step, metrics(loss))
    assert second.line()["loss"] == whole.line()["loss"]
    assert second.images == whole.images == 20
    assert second.seconds > first.seconds


def test_what_is_not_training_is_not_timed(monkeypatch):
    clock = iter([0.0, 2.0, 2.0, 100.0, 101.0, 101.0])
    monkeypatch.setattr("time.perf_counter", lambda: next(clock))
    meter = Meter(batch_size=30)  # 0
    meter.add(1, metrics(1))
    meter.settle()  # 2
    meter.start()  # 100, after an evaluation
    meter.add(2, metrics(1))
    assert meter.line()["images_per_second"] == 60 / (2 + 1)  # 101
    assert meter.seconds == 3
