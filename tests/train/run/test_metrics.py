import json
import math

import jax.numpy as jnp
import pytest

from train.errors import NotFiniteError
from train.run.metrics import Meter, MetricsLog, read_metrics


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


def test_a_saved_meter_resumes_bit_equal():
    losses = [1 / 3, 0.1, 1e-7, 2.0, 1 / 7]
    uninterrupted, first = Meter(4), Meter(4)
    for step, loss in enumerate(losses, start=1):
        uninterrupted.add(step, metrics(loss))
    for step, loss in enumerate(losses[:2], start=1):
        first.add(step, metrics(loss))
    second = Meter(4, json.loads(json.dumps(first.settle())))
    for step, loss in enumerate(losses[2:], start=3):
        second.add(step, metrics(loss))
    assert second.line()["loss"] == uninterrupted.line()["loss"]
    assert second.images == uninterrupted.images == 20
    assert second.seconds > first.seconds


def test_only_training_is_timed(monkeypatch):
    clock = iter([0.0, 2.0, 2.0, 100.0, 101.0, 101.0])
    monkeypatch.setattr("time.perf_counter", lambda: next(clock))
    meter = Meter(batch_size=30)  # 0
    meter.add(1, metrics(1))
    meter.settle()  # 2
    meter.start()  # 100, after an evaluation
    meter.add(2, metrics(1))
    assert meter.line()["images_per_second"] == 60 / (2 + 1)  # 101
    assert meter.seconds == 3


def test_a_resumed_log_drops_lines_that_will_be_measured_again(tmp_path):
    with MetricsLog(tmp_path, 0) as log:
        for step in (5, 10, 15):
            log.write({"step": step, "loss": 1 / step})
    with MetricsLog(tmp_path, 10) as log:
        log.write({"step": 15, "loss": 0.5})
    expected = [(5, 1 / 5), (10, 1 / 10), (15, 0.5)]
    assert [(line["step"], line["loss"]) for line in read_metrics(tmp_path)] == expected


def test_a_truncated_line_is_ignored(tmp_path):
    whole = json.dumps({"step": 5})
    (tmp_path / "metrics.jsonl").write_text(f'{whole}\n{{"step": 1')
    assert read_metrics(tmp_path) == [{"step": 5}]
    with MetricsLog(tmp_path, 5) as log:
        log.write({"step": 10})
    assert [line["step"] for line in read_metrics(tmp_path)] == [5, 10]


def test_a_line_can_be_read_as_soon_as_it_is_written(tmp_path):
    with MetricsLog(tmp_path, 0) as log:
        log.write({"step": 5})
        assert read_metrics(tmp_path) == [{"step": 5}]
