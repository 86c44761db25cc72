"""Helpers for tests of whole runs: interrupt them, compare them, or fake one."""

import itertools
import signal

import chex
import jax.numpy as jnp
import pytest

from tests.support.small_models import random_variables
from train.data.select import training_images
from train.errors import Interrupted
from train.learn.step import TrainState
from train.run.checkpoint import Checkpoints
from train.run.loop import fit
from train.run.metrics import read_metrics
from train.run.program import build
from train.run.progress import RunProgress
from train.run.record import build_model, describe
from train.run.run_folder import read_result, write_record


def last_checkpoint(run, config):
    with Checkpoints(run) as checkpoints:
        return checkpoints.latest, checkpoints.restore(build(config).shapes)[0]


def assert_same_end(run, other, config):
    """Asserts that two runs have equal results, to the bit, except for times."""
    assert [untimed(line) for line in [*read_metrics(run), read_result(run)]] == [
        untimed(line) for line in [*read_metrics(other), read_result(other)]
    ]
    chex.assert_trees_all_equal(
        last_checkpoint(run, config), last_checkpoint(other, config)
    )


def untimed(line):
    timed = ("seconds", "images_per_second")
    return {name: value for name, value in line.items() if name not in timed}


def interrupt_at(monkeypatch, *steps, number=signal.SIGINT):
    """Raises a signal, as Ctrl-C does, after these steps, counted over all starts."""
    calls = itertools.count(1)
    original = RunProgress.step

    def step(self):
        original(self)
        if next(calls) in steps:
            signal.raise_signal(number)

    monkeypatch.setattr(RunProgress, "step", step)


def assert_resumes_to_the_same_end(config, folder, step, monkeypatch, console):
    """Asserts that a run stopped after a step ends, once resumed, like a whole one.

    Returns the folders of both.
    """
    whole, stopped = folder / "whole", folder / "stopped"
    fit(config, whole, console=console)
    interrupt_at(monkeypatch, step)
    with pytest.raises(Interrupted):
        fit(config, stopped, console=console)
    fit(config, stopped, console=console)
    assert_same_end(stopped, whole, config)
    return whole, stopped


def untrained_run(folder, config):
    """Writes a run whose checkpoint has random weights and batch statistics."""
    record = describe(config, "", training_images(config))
    size, channels = record["input"]["image_size"], record["input"]["channels"]
    variables = random_variables(build_model(record), 1, size, size, channels)
    step = jnp.zeros((), jnp.int32)
    write_record(folder, record)
    with Checkpoints(folder) as checkpoints:
        checkpoints.save(0, TrainState(step, **variables, opt_state=step), {})
    return folder
