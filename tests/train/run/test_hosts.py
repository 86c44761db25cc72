"""Runs of two processes, each with two devices, on this machine."""

import json
import os
import pickle
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from tests.support.runs import untimed, untrained_run
from train.config_file import config_from_json, read_record
from train.errors import UserError
from train.hosts import agree, count, gather, is_leader
from train.joining import Hosts, _local_devices
from train.learn.teacher import TEACHER_LOGITS
from train.lifeline import Listener
from train.run.checkpoint import Checkpoints
from train.run.metrics import read_metrics
from train.run.program import build
from train.run.run_folder import read_result
from train.run.teacher_cache import with_teacher_logits

HERE = Path(__file__).parent
FLAGS = "--epochs 2 --batch-size 64 --log-every 5 --checkpoint-every 5 --flip 0.5"
FIELDS = ["--model-fields", "stage_sizes=(1,)", "width=4", "small_inputs=True"]
STEPS = 2 * 22


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("", 2, 0), "need --coordinator HOST:PORT"),
        (("auto", 1, 1), "need --coordinator HOST:PORT"),
        (("somewhere", 2, 0), "must be HOST:PORT or auto, got somewhere"),
        (("a:70000", 2, 0), "must be HOST:PORT or auto, got a:70000"),
        (("a:1234", 2, 2), "--process must be 0 to 1, as --processes is 2; got 2"),
        (("a:1234", 0, 0), "--processes must be at least 1, got 0"),
        (("a:1234", 2, 0, 0), "--join-seconds must be at least 1, got 0"),
    ],
)
def test_bad_flags(flags, message):
    with pytest.raises(UserError, match=message):
        Hosts(*flags)


def test_one_process_agrees_with_itself_and_leads():
    agree({"--seed": 1})
    assert gather("text") == ["text"]
    assert count() == 1 and is_leader()


@pytest.mark.parametrize(
    ("gpus", "tasks", "taken"),
    [
        ("0", "8(x4)", [0]),  # --gpus-per-task 1
        ("0,1,2,3", "1(x2)", [0, 1, 2, 3]),
        ("0,1,2,3", "1", [0, 1, 2, 3]),
        ("0,1,2,3", "4(x2)", None),  # JAX's own choice: that with the task's number.
        ("0,1,2,3", "12", None),
        ("0,1", "", None),
        ("", "1", None),
    ],
)
def test_the_gpus_of_a_task_on_slurm(monkeypatch, gpus, tasks, taken):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", gpus)
    monkeypatch.setenv("SLURM_STEP_TASKS_PER_NODE", tasks)
    assert _local_devices().get("local_device_ids") == taken
    monkeypatch.setenv("JAX_LOCAL_DEVICE_IDS", "1")
    assert _local_devices() == {}


def test_strangers_are_not_taken_for_processes():
    listener = Listener()

    def process(line):
        theirs, ours = socket.socketpair()
        with theirs, ours:
            theirs.sendall(f"{line}\n".encode())
            return listener.process_of(ours)

    for line in ("1", '{"token": 5}', '{"token": "\u00e4"}', "[]", "GET / HTTP/1.1"):
        assert process(line) is None
    assert process(json.dumps({"token": listener.token, "process": 1})) == 1
    listener.close()


def test_an_error_right_after_the_greeting_is_left_to_be_read():
    listener = Listener()
    theirs, ours = socket.socketpair()
    with theirs, ours:
        greeting = json.dumps({"token": listener.token, "process": 1})
        theirs.sendall(f"{greeting}\nwhat failed\n".encode())
        assert listener.process_of(ours) == 1
        ours.settimeout(1)
        assert ours.recv(100) == b"what failed\n"
    listener.close()


class Pair:
    """Two processes of one program."""

    def __init__(
        self,
        program,
        *words,
        each=((), ()),
        folders=None,
        processes=(0, 1),
        numbers=(2, 2),
        **environment,
    ):
        """Starts it; each process has `words`, its own and the flags of its number.

        `numbers` are what each takes for the number of processes.
        """
        with socket.create_server(("127.0.0.1", 0)) as server:
            address = f"127.0.0.1:{server.getsockname()[1]}"

        def joining(i):
            flags = {"coordinator": address, "processes": numbers[i], "process": i}
            return [word for k, v in flags.items() for word in (f"--{k}", str(v))]

        self.processes = {
            i: subprocess.Popen(
                [sys.executable, program, *words, *each[i], *joining(i)],
                cwd=folders and folders / str(i),
                env={
                    **os.environ,
                    "PYTHONPATH": os.pathsep.join(sys.path),
                    "JAX_PLATFORMS": "cpu",
                    "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
                    **environment,
                },
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for i in processes
        }

    def __enter__(self):
        return self

    def __exit__(self, *error):
        for process in self.processes.values():
            process.kill()
            process.communicate()

    def ends(self, seconds=300):
        """Exit code and error output of each process, in the order of their numbers."""
        end = time.monotonic() + seconds
        errors = {
            i: process.communicate(timeout=max(1, end - time.monotonic()))[1]
            for i, process in self.processes.items()
        }
        return [(p.returncode, errors[i]) for i, p in self.processes.items()]


def alone(program, *words, devices):
    done = subprocess.run(
        [sys.executable, program, *words],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(sys.path),
            "JAX_PLATFORMS": "cpu",
            "JAX_ENABLE_X64": "1",
            "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
        },
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def ten_steps(tmp_path_factory):
    """What four devices of one process give, and two devices of each of two."""
    folder = tmp_path_factory.mktemp("ten_steps")
    one, two = folder / "one", folder / "two"
    for out in (one, two):
        out.mkdir()
    program = str(HERE / "ten_steps.py")
    alone(program, str(one), "", devices=4)
    # The two restore what the one has saved, and the other way round.
    with Pair(program, str(two), str(one), JAX_ENABLE_X64="1") as pair:
        assert [code for code, _ in pair.ends()] == [0, 0], pair.ends()
    for devices in (1, 4, 8):
        alone(program, "", str(two), devices=devices)
    return one, two


@pytest.mark.slow
@pytest.mark.parametrize("method", ["supervised", "fixmatch", "distillation"])
def test_two_processes_equal_one(ten_steps, method):
    one, two = (
        pickle.loads((out / f"{method}.pickle").read_bytes()) for out in ten_steps
    )
    assert len(one["metrics"]) == 10
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-9), one, two
    )
    # Each image once, in order.
    assert list(two["evaluation"]["index"]) == list(range(359))


def run_pair(run, programs, *words, **options):
    words = ["digits_resnet", "--out", str(run), *FLAGS.split(), *FIELDS, *words]
    cache = {"JAX_COMPILATION_CACHE_DIR": str(programs)}
    program = str(HERE / "one_of_several.py")
    return Pair(program, *words, **options, **cache)


def wait_for_checkpoint(pair, run, step):
    while all(process.poll() is None for process in pair.processes.values()):
        steps = [int(p.name) for p in run.glob("checkpoints/*") if p.name.isdecimal()]
        if max(steps, default=0) >= step:
            return
        time.sleep(0.002)
    pytest.fail(f"It ended before step {step}: {pair.ends()}")


def end(run):
    record = read_record(run)
    assert record is not None
    with Checkpoints(run) as checkpoints:
        assert checkpoints.latest == STEPS
        config = config_from_json(record["config"])
        state, _ = checkpoints.restore(build(config).shapes)
    lines = [*read_metrics(run), read_result(run)]
    return [untimed(line) for line in lines], state


@pytest.mark.slow
def test_processes_end_together_and_resume_bit_equal(tmp_path, programs):
    expected, run = tmp_path / "uninterrupted", tmp_path / "run"
    with run_pair(expected, programs) as pair:
        assert [code for code, _ in pair.ends()] == [0, 0]

    for victim, step in ((1, 5), (0, 15)):
        with run_pair(run, programs) as pair:
            wait_for_checkpoint(pair, run, step)
            pair.processes[victim].kill()
            started = time.monotonic()
            ends = pair.ends(60)
            assert time.monotonic() - started < 60
        code, message = ends[1 - victim]
        assert code == 1, message
        assert f"Process {victim} of this run has ended: it was killed" in message
        assert "Traceback" not in message and "stack trace" not in message

    with run_pair(run, programs) as pair:
        wait_for_checkpoint(pair, run, 25)
        pair.processes[1].send_signal(signal.SIGTERM)
        ends = pair.ends()
    assert [code for code, _ in ends] == [128 + signal.SIGTERM] * 2
    # Both stop after the same step.
    stopped = {
        message[message.index("Stopped after") :].split()[3] for _, message in ends
    }
    assert len(stopped) == 1

    with run_pair(run, programs) as pair:
        assert [code for code, _ in pair.ends()] == [0, 0]
    lines, state = end(run)
    expected_lines, expected_state = end(expected)
    assert lines == expected_lines
    jax.tree.map(np.testing.assert_array_equal, state, expected_state)


@pytest.mark.slow
def test_what_differs_is_named_by_every_process(tmp_path, programs):
    run = tmp_path / "run"
    each = (("--learning-rate", "0.5"), ("--learning-rate", "0.25"))
    with run_pair(run, programs, each=each) as pair:
        ends = pair.ends()
    message = "they differ: --learning-rate is 0.5 in process 0 and 0.25 in process 1."
    for code, error in ends:
        assert code in (1, 2) and message in error and "Traceback" not in error
    assert not run.exists()


@pytest.mark.slow
def test_another_number_of_processes_ends_them(tmp_path, programs):
    with run_pair(tmp_path / "run", programs, numbers=(2, 3)) as pair:
        ends = pair.ends(100)
    for code, error in ends:
        assert code in (1, 2) and "Traceback" not in error
        assert "--processes is 2 in process 0 and 3 in process 1." in error


@pytest.mark.slow
def test_other_data_is_named_by_every_process(tmp_path, programs):
    for i in (0, 1):
        (tmp_path / str(i)).mkdir()
        np.savez(
            tmp_path / str(i) / "set.npz",
            images=np.full((200, 8, 8), i, np.uint8),
            labels=np.arange(200) % 10,
        )
    run, words = tmp_path / "run", ("--data", "npz:set.npz")
    with run_pair(run, programs, *words, folders=tmp_path) as pair:
        ends = pair.ends()
    for code, error in ends:
        assert code in (1, 2) and "Traceback" not in error
        assert "they differ: images of the training data is " in error
        assert "number of images" not in error and "listing" not in error
    assert not run.exists()


@pytest.mark.slow
def test_a_coordinator_that_does_not_answer(tmp_path, programs):
    run = tmp_path / "run"
    words = ("--join-seconds", "2")
    for i, message in ((1, "did not answer within 2 s"), (0, "Not all 2 processes")):
        with run_pair(run, programs, *words, processes=(i,)) as pair:
            ((code, error),) = pair.ends(60)
        assert code == 2 and message in error and "Traceback" not in error
    assert not run.exists()


@pytest.mark.slow
def test_one_process_writes_the_cache_that_all_read_and_check(tmp_path, programs, tiny):
    teacher = untrained_run(tmp_path / "teacher", tiny)
    words = ["--epochs", "1", "--flip", "0", "--crop-padding", "0"]
    words += ["--teacher", str(teacher), "--cache-teacher"]
    with run_pair(tmp_path / "run", programs, *words) as pair:
        ends = pair.ends()
    assert [code for code, _ in ends] == [0, 0], ends

    record = read_record(tmp_path / "run")
    assert record is not None
    program = build(config_from_json(record["config"]))
    expected = with_teacher_logits(program, tmp_path).train.columns[TEACHER_LOGITS]
    cache = tmp_path / "run" / "teacher_logits_train.npy"
    found = np.load(cache)
    assert found.shape == expected.shape == (1438, 10)
    np.testing.assert_allclose(found, expected[np.arange(1438)], rtol=1e-4, atol=1e-5)

    with cache.open("r+b") as file:
        file.seek(-1000, os.SEEK_END)
        file.write(bytes(8))
    with run_pair(
        tmp_path / "run", programs, *words, "--extend", "--epochs", "2"
    ) as pair:
        ends = pair.ends()
    for code, error in ends:
        assert code in (1, 2) and "Traceback" not in error
        assert "Remove the file to compute it again" in error
