"""Real processes, stopped from outside."""

import io
import os
import signal
import subprocess
import sys
import time

import chex
import pytest
from rich.console import Console

from train.checkpoint import Checkpoints
from train.config import config_from_json
from train.folder import read_metrics, read_record, read_result
from train.loop import fit
from train.program import build

FLAGS = "--epochs 12 --batch-size 64 --log-every 5 --checkpoint-every 7 --flip 0.5"
FIELDS = ["--model-fields", "stage_sizes=(1,)", "width=4", "small_inputs=True"]
STEPS = 12 * 22


@pytest.fixture
def start(programs):
    """Starts a run, always by the same command but for its folder."""
    started = []

    def start(run):
        words = ["digits_resnet", "--out", str(run), *FLAGS.split(), *FIELDS]
        started.append(
            subprocess.Popen(
                [sys.executable, "-m", "train", *words],
                env={
                    **os.environ,
                    "JAX_PLATFORMS": "cpu",
                    "JAX_COMPILATION_CACHE_DIR": str(programs),
                },
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def wait_for_checkpoint(process, run, step):
    """Returns as soon as there is a checkpoint of that step or a later one."""
    folder = run / "checkpoints"
    while process.poll() is None:
        steps = [int(p.name) for p in folder.glob("*") if p.name.isdecimal()]
        if max(steps, default=0) >= step:
            return
        time.sleep(0.002)
    pytest.fail(f"It ended before step {step}: {process.communicate()}")


def read_config(run):
    record = read_record(run)
    assert record is not None
    return config_from_json(record["config"])


def end(run):
    """Metrics, result and last checkpoint, without what a clock measured."""
    with Checkpoints(run) as checkpoints:
        assert checkpoints.latest == STEPS
        state, _ = checkpoints.restore(build(read_config(run)).shapes)
    lines = [*read_metrics(run), read_result(run)]
    timed = ("seconds", "images_per_second")
    return [{k: v for k, v in line.items() if k not in timed} for line in lines], state


def test_a_run_that_was_killed_ends_to_the_bit_as_one_that_was_not(tmp_path, start):
    run, whole = tmp_path / "run", tmp_path / "whole"
    process = start(run)
    wait_for_checkpoint(process, run, 100)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert read_result(run) is None
    out, err = start(run).communicate()
    assert "Going on from step" in out, err

    config = read_config(run)
    quiet = Console(file=io.StringIO())
    fit(config, whole, recipe="digits_resnet", console=quiet)
    (lines, state), (whole_lines, whole_state) = end(run), end(whole)
    assert lines == whole_lines
    chex.assert_trees_all_equal(state, whole_state)


def test_ctrl_c_saves_and_says_how_to_go_on(tmp_path, start):
    run = tmp_path / "a run"
    process = start(run)
    wait_for_checkpoint(process, run, 40)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate()
    assert process.returncode == 130
    with Checkpoints(run) as checkpoints:
        step = checkpoints.latest
    assert step is not None and 40 <= step < STEPS
    command = f"python -m train digits_resnet --out '{run}' {FLAGS}"
    assert f"Stopped after step {step}. It is saved; to go on: {command}" in err
    assert "Traceback" not in err
    assert max(line["step"] for line in read_metrics(run)) <= step
