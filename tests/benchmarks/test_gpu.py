import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks import gpu
from benchmarks.__main__ import main
from benchmarks.flags import parse
from benchmarks.gpu_parts import PARTS, Part
from benchmarks.gpu_process import run_part
from benchmarks.measurements import Measurements, write
from benchmarks.networks import CANDIDATES
from cnn_flax import model_info

HEADER = {"device": "1 x H", "command": "c", "commit": "d", "date": "2026-01-02T03"}


def part(name, seconds=100, flags=""):
    return Part(name, ("training",), "resnet50", 256, ("ours",), seconds, flags)


class Session:
    """A clock and a runner, whose parts take these seconds and give these images/s."""

    def __init__(self, folder, durations, rates=(), status=0):
        self.folder, self.time, self.status = folder, 1000.0, status
        self.durations, self.rates = dict(durations), dict(rates)
        self.ran, self.tables, self.environments = [], [], {}

    def clock(self):
        return self.time

    def run(self, command, environment, log, seconds):
        path = log.with_suffix(".json")
        assert command[-2:] == ["--json", str(path)]
        name = log.stem.split("_", 1)[1]
        if (table := self.folder / "table.md").exists():
            self.tables.append(table.read_text())
        self.ran.append(name)
        self.environments[name] = environment
        log.write_text("\n")
        if name in self.rates:
            row = {"benchmark": "training", "case": "resnet50, batch 256", "median": 1}
            row |= {"candidate": "ours", "images_per_second": self.rates[name]}
            row["operations"] = [["sm90_wgrad", 0.004, 0.25]]
            write(path, Measurements(HEADER, [row]))
        self.time += min(self.durations[name], seconds)
        return None if self.durations[name] > seconds else self.status

    def measure(self, parts, seconds, **fields):
        console = Console(quiet=True)
        fields = {"run": self.run, "clock": self.clock, **fields}
        return gpu.measure(parts, self.folder, seconds, console, **fields)


def states(results):
    return {result.part.name: result.state for result in results}


def test_a_session_stops_in_time_and_lists_what_was_not_reached(tmp_path):
    session = Session(tmp_path, {"a": 100, "b": 500, "c": 0}, {"a": 7000, "b": 8000})
    results = session.measure([part("a"), part("b"), part("c")], 400)
    assert session.time - 1000 == 400 - 10  # The reserve for the table.
    assert states(results) == {
        "a": "measured",
        "b": "stopped, as time was over",
        "c": "not reached",
    }
    lines = (tmp_path / "table.md").read_text().splitlines()
    assert "| a |  | measured | 100 | training 7,000 |" in lines
    # What a part wrote before it was stopped counts.
    assert "| b |  | stopped, as time was over | 290 | training 8,000 |" in lines
    assert "| c |  | not reached |  |  |" in lines


def test_a_part_starts_only_if_its_time_is_left_and_a_shorter_one_may(tmp_path):
    session = Session(tmp_path, {"a": 100, "c": 40})
    results = session.measure([part("a"), part("b", 101), part("c", 50)], 210)
    assert session.ran == ["a", "c"]
    assert states(results)["b"] == "not reached"


def test_the_table_is_whole_after_each_part(tmp_path):
    session = Session(tmp_path, {"a": 10, "b": 10, "c": 10}, {"a": 7000, "b": 12000})
    session.measure([part("a"), part("b"), part("c")], 1000)
    first, second = session.tables
    assert "| a |  | measured | 10 | training 7,000 |" in first
    assert "| b |  | not reached |  |  |" in first
    goal = "| ResNet-50, training, images/s |  | 6,900 | 11,000 |"
    assert f"{goal} 7,000 | required |" in first
    assert f"{goal} 12,000 | target |" in second
    assert "## 00_b" not in first
    assert "| `sm90_wgrad` | 4.000 | 25.0% |" in first
    assert not list(tmp_path.glob(".*"))


def test_flags_have_their_own_caches_and_no_share_in_the_goals(tmp_path, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--of_mine")
    session = Session(tmp_path, {"a": 1, "b": 1, "f": 1}, {"f": 20000})
    session.measure([part("a"), part("f", flags="--xla_x=1"), part("b")], 1000)
    a, f, b = (session.environments[name] for name in ("a", "f", "b"))
    assert f["XLA_FLAGS"] == "--of_mine --xla_x=1"
    assert "XLA_FLAGS" not in a
    assert a == b
    assert not {*a.values()} & {*f.values()}
    text = (tmp_path / "table.md").read_text()
    assert "| f | `--xla_x=1` | measured | 1 | training 20,000 |" in text
    assert "| 6,900 | 11,000 | not measured |" in text


def test_results_of_another_session_do_not_count(tmp_path):
    Session(tmp_path, {"a": 1, "b": 1}, {"a": 1, "b": 2}).measure(
        [part("a"), part("b")], 900
    )
    session = Session(tmp_path, {"a": 1})
    session.measure([part("a"), part("b", 1000)], 900)
    text = (tmp_path / "table.md").read_text()
    assert "| a |  | measured | 1 |  |" in text
    assert "| b |  | not reached |  |  |" in text


def test_ctrl_c_leaves_the_table(tmp_path):
    session = Session(tmp_path, {"a": 10}, {"a": 7000})

    def run(command, environment, log, seconds):
        if "01_" in log.name or not session.ran:
            return session.run(command, environment, log, seconds)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        session.measure([part("a"), part("b"), part("c")], 1000, run=run)
    text = (tmp_path / "table.md").read_text()
    assert "| a |  | measured | 10 | training 7,000 |" in text
    assert "| b |  | interrupted |  |  |" in text
    assert "| c |  | not reached |  |  |" in text


@pytest.mark.parametrize(
    ("log", "rows", "reason"),
    [
        (
            "F1130 parse_flags_from_env.cc:234] Unknown flag in XLA_FLAGS: --xla_x=1\n"
            "usage\n  --xla_y\n",
            [],
            "Unknown flag in XLA_FLAGS: --xla_x=1",
        ),
        ("a\nerror: There is no model.\nb\n", [], "error: There is no model."),
        ("Raw results: a\n", [{"error": "No memory."}], "ours: No memory."),
        ("a\nlast words\n\n", [], "last words"),
    ],
)
def test_a_part_that_fails_is_one_line_and_the_next_runs(tmp_path, log, rows, reason):
    session = Session(tmp_path, {"a": 1, "b": 1})

    def run(command, environment, path, seconds):
        if path.stem.endswith("b"):
            return session.run(command, environment, path, seconds)
        path.write_text(log)
        names = {"benchmark": "training", "case": "c", "candidate": "ours"}
        if rows:
            own = [{**names, **row} for row in rows]
            write(path.with_suffix(".json"), Measurements(HEADER, own))
        return 1

    results = session.measure([part("a"), part("b")], 1000, run=run)
    assert states(results) == {"a": f"failed: {reason}", "b": "measured"}
    assert f"| failed: {reason} | 0 |" in (tmp_path / "table.md").read_text()


@pytest.mark.skipif(sys.platform != "linux", reason="pidfd_open")
def test_a_part_is_ended_with_the_processes_that_it_started(tmp_path):
    # As a part and its workers; neither would end by itself.
    code = (
        "import subprocess, time\n"
        "print(subprocess.Popen(['sleep', '600']).pid, flush=True)\n"
        "time.sleep(600)"
    )
    log = tmp_path / "log"
    start = time.monotonic()
    command = [sys.executable, "-S", "-c", code]
    assert run_part(command, {}, log, 1.0) is None
    assert time.monotonic() - start < 60
    worker = int(log.read_text())
    with contextlib.suppress(ProcessLookupError):
        descriptor = os.pidfd_open(worker)
        ended, _, _ = select.select([descriptor], [], [], 10)
        os.close(descriptor)
        assert ended


def test_a_part_ends_with_its_status_and_sees_the_environment(tmp_path):
    code = "import os, sys; print(os.environ['A_FLAG']); sys.exit(3)"
    command = [sys.executable, "-S", "-c", code]
    assert run_part(command, {"A_FLAG": "x"}, tmp_path / "log", 60) == 3
    assert (tmp_path / "log").read_text() == "x\n"


def test_the_parts_name_what_the_suite_measures():
    assert len({p.name for p in PARTS}) == len(PARTS)
    for p in PARTS:
        assert set(p.candidates) <= set(CANDIDATES)
        assert set(p.benchmarks) <= {"training", "inference"}
        model_info(p.model)
        for rehearse in (False, True):
            flags = parse(p.words(Path("a.json"), rehearse), "")
            assert flags.profile == p.profile and flags.limits == p.limits


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("gpu",), "JAX sees no GPU here, only a cpu."),
        (("gpu", "--parts", "vgg"), "There is no part 'vgg'. Nearest: vgg16."),
        (("gpu", "--minutes", "0"), "--minutes: 0 is not above 0"),
    ],
)
def test_bad_arguments_are_explained(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code
    assert message in capsys.readouterr().err + str(ended.value.code)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_xla_knows_the_flags_of_every_part():
    # XLA parses the flags of all devices, and ends the process at an unknown one.
    flags = " ".join(p.flags for p in PARTS)
    command = [sys.executable, "-c", "import jax; jax.devices()"]
    done = subprocess.run(
        command, env={**os.environ, "XLA_FLAGS": flags}, capture_output=True
    )
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.slow
def test_two_parts_are_rehearsed_on_the_cpu(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    parts = "resnet50_inference,resnet50_nchw"
    main(["gpu", "--rehearse", "--parts", parts, "--minutes", "30", "--out", "session"])
    text = (tmp_path / "session" / "table.md").read_text()
    assert "| resnet50_inference |  | measured |" in text
    assert "| resnet50_nchw | `--xla_gpu_force_conv_nchw=true` | measured |" in text
    assert "## 02_resnet50_inference" in text
    assert text.count("| longest operations |") == 3  # Inference, then both.
    flagged = (tmp_path / "session" / "11_resnet50_nchw.json").read_text()
    assert (
        "--xla_gpu_force_conv_nchw=true" in json.loads(flagged)["header"]["XLA_FLAGS"]
    )
    assert list((tmp_path / "session").glob("02_*.profile/**/*.xplane.pb"))


@pytest.mark.slow
def test_a_signal_ends_the_workers_and_leaves_the_table(tmp_path):
    command = [sys.executable, "-m", "benchmarks", "gpu", "--rehearse"]
    command += ["--parts", "resnet50_inference", "--minutes", "30", "--out", "session"]
    process = subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    assert process.stdout is not None
    assert b"resnet50_inference: " in process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    assert b"Stopped. What was measured: session/table.md" in output
    text = (tmp_path / "session" / "table.md").read_text()
    assert "| resnet50_inference |  | interrupted |" in text
