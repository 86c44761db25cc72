"""Helpers for tests of whole runs: interrupt them, and compare their results."""

import itertools
import signal

import chex

from train.run.checkpoint import Checkpoints
from train.run.metrics import read_metrics
from train.run.program import build
from train.run.progress import RunProgress
from train.run.run_folder import read_result


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
