"""What happens to a run from outside while it trains: it ends the same, or goes on."""

import dataclasses
import itertools
import math
import os
import time

import jax
import pytest

from tests.support.runs import assert_same_end, interrupt_at, last_checkpoint
from train.errors import Interrupted, NotFiniteError, UserError
from train.run import loop
from train.run.loop import fit
from train.run.progress import RunProgress

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("programs", "undrawn")]


@pytest.fixture(scope="module")
def config(tiny):
    return dataclasses.replace(
        tiny,
        epochs=1,
        log_every=2,
        checkpoint_every=2,
        optimization=dataclasses.replace(tiny.optimization, warmup_epochs=0),
    )


@pytest.fixture(scope="module")
def whole(config, programs, tmp_path_factory):
    """The folder of a run that nothing happened to."""
    run = tmp_path_factory.mktemp("whole") / "run"
    fit(config, run)
    return run


def test_a_clock_that_is_set_back_changes_nothing(
    config, whole, quiet, tmp_path, monkeypatch
):
    start, hours = time.time(), itertools.count()
    monkeypatch.setattr(time, "time", lambda: start - 3600 * next(hours))
    interrupt_at(monkeypatch, 5)
    with pytest.raises(Interrupted):
        fit(config, tmp_path / "run", console=quiet)
    fit(config, tmp_path / "run", console=quiet)
    assert next(hours) > 0
    assert_same_end(tmp_path / "run", whole, config)


def test_a_second_run_in_the_folder_is_refused_and_the_first_ends_the_same(
    config, whole, quiet, tmp_path, monkeypatch
):
    run, refused, original = tmp_path / "run", [], RunProgress.step

    def step(self):
        original(self)
        if not refused:
            with pytest.raises(UserError, match=f"in use by process {os.getpid()}"):
                refused.append(run)
                fit(config, run, console=quiet)

    monkeypatch.setattr(RunProgress, "step", step)
    fit(config, run, console=quiet)
    assert refused
    assert_same_end(run, whole, config)


def test_a_run_goes_on_from_before_a_batch_that_gave_nan(
    config, whole, quiet, tmp_path, monkeypatch
):
    run, steps, compile_steps = tmp_path / "run", itertools.count(1), loop.compile_steps

    def compiled(program):
        train_step, eval_step = compile_steps(program)

        def poisoned(state, batch, key):
            state, metrics = train_step(state, batch, key)
            if next(steps) != 6:
                return state, metrics
            params = jax.tree.map(lambda x: x * math.nan, state.params)
            return state.replace(params=params), {**metrics, "loss": math.nan}

        return poisoned, eval_step

    with monkeypatch.context() as patch:
        patch.setattr(loop, "compile_steps", compiled)
        with pytest.raises(NotFiniteError, match="The loss of step 6 is nan"):
            fit(config, run, console=quiet)
    assert last_checkpoint(run, config)[0] == 4
    fit(config, run, console=quiet)
    assert_same_end(run, whole, config)
