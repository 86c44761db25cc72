"""Real processes, stopped from the outside."""

import os
import resource
import signal
import subprocess
import sys
import time

import chex
import pytest

from train.config_file import config_from_json, read_record
from train.run.checkpoint import Checkpoints
from train.run.metrics import read_metrics
from train.run.program import build
from train.run.run_folder import read_result

FLAGS = "--epochs 12 --batch-size 64 --log-every 5 --checkpoint-every 7 --flip 0.5"
FIELDS = ["--model-fields", "stage_sizes=(1,)", "width=4", "small_inputs=True"]
STEPS = 12 * 22


def open_process(run, programs):
    words = ["digits_resnet", "--out", str(run), *FLAGS.split(), *FIELDS]
    return subprocess.Popen(
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


@pytest.fixture
def start(programs):
    """Starts a run, always with the same command except for its folder."""
    started = []

    def start(run):
        started.append(open_process(run, programs))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def wait_for_checkpoint(process, run, step):
    """Waits for a checkpoint of this step or a later one."""
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
    """Metrics, result and last checkpoint, without times."""
    with Checkpoints(run) as checkpoints:
        assert checkpoints.latest == STEPS
        state, _ = checkpoints.restore(build(read_config(run)).shapes)
    lines = [*read_metrics(run), read_result(run)]
    timed = ("seconds", "images_per_second")
    return [{k: v for k, v in line.items() if k not in timed} for line in lines], state


@pytest.fixture(scope="module")
def uninterrupted(programs, tmp_path_factory):
    """The folder of an uninterrupted run."""
    run = tmp_path_factory.mktemp("uninterrupted") / "run"
    process = open_process(run, programs)
    process.communicate()
    assert process.returncode == 0
    return run


@pytest.fixture
def assert_resumes_exactly(start, uninterrupted):
    """Resumes a run, and compares its end with that of an uninterrupted one."""

    def check(run):
        assert read_result(run) is None
        out, err = start(run).communicate()
        assert "Resuming from step" in out, err
        lines, state = end(run)
        expected_lines, expected_state = end(uninterrupted)
        assert lines == expected_lines
        chex.assert_trees_all_equal(state, expected_state)

    return check


@pytest.mark.slow
def test_a_disk_that_fills_up_damages_nothing(tmp_path, start, assert_resumes_exactly):
    run = tmp_path / "run"
    process = start(run)
    wait_for_checkpoint(process, run, 100)
    # Like a full disk: no file of the process may grow beyond a kilobyte.
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (1024, 1024))
    _, err = process.communicate()
    assert process.returncode == 1
    with Checkpoints(run) as checkpoints:
        step = checkpoints.latest
    assert step is not None and 100 <= step < STEPS
    # tensorstore's threads may print more.
    assert (
        f"{run} cannot be written to: File too large. It keeps the checkpoint of step "
        f"{step}. Make room; to resume: python -m train digits_resnet --out {run} "
    ) in err
    assert_resumes_exactly(run)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_says_how_to_resume(tmp_path, start, number):
    run = tmp_path / "a run"
    process = start(run)
    wait_for_checkpoint(process, run, 40)
    process.send_signal(number)
    _, err = process.communicate()
    assert process.returncode == 128 + number
    with Checkpoints(run) as checkpoints:
        step = checkpoints.latest
    assert step is not None and 40 <= step < STEPS
    command = f"python -m train digits_resnet --out '{run}' {FLAGS}"
    assert f"Stopped after step {step}. It is saved; to resume: {command}" in err
    assert "Traceback" not in err
    assert max(line["step"] for line in read_metrics(run)) <= step
