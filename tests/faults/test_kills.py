"""Real commands that are killed at drawn points, and resumed.

pytest -m slow tests/faults/test_kills.py --kill-points 20 --kill-seed 1

A point is an operation on a file, a training step or a batch of an evaluation; saves go
on in other threads meanwhile.
"""

import json
import random
import signal
from functools import cache
from pathlib import Path
from typing import NamedTuple

import chex
import orbax.checkpoint as ocp
import pytest

from tests.support.killed import Point, events_of, run_command
from train.run.metrics import read_metrics

pytestmark = pytest.mark.slow

POINTS, SEED = 6, 0

_FIELDS = "stage_sizes=(1,) width=4 small_inputs=True"
_SHORT = f"""
--epochs 1 --log-every 2 --checkpoint-every 2 --precise-bn never --crop-padding 0
--model-fields {_FIELDS}
"""


class Command(NamedTuple):
    """A command, the share of the points that it gets, and its stages.

    A stage is named by how the paths of its files begin.
    """

    words: str
    share: float
    stages: tuple[str, ...]


COMMANDS = {
    "noisy-student": Command(
        f"noisy-student noisy_student_digits {_SHORT} dropout_rate=0.2 --epoch-steps 6 "
        "--policy none --flip 0.5 --min-confidence 0 --per-class 20 "
        "--students resnet18 width=5 --finetune-size 10 --finetune-steps 4",
        2 / 3,
        ("round0/teacher", "round1/labels", "round1/student", "final"),
    ),
    "features": Command(
        f"digits_resnet {_SHORT} --init {{teacher}} --transfer features "
        "--learning-rate 0.01 --batch-size 200",
        1 / 3,
        ("config", "features", "metrics"),
    ),
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory, programs):
    """Runs a command once, without a kill: its words, its folder, and its events."""
    folder = tmp_path_factory.mktemp("whole")

    @cache
    def run(name):
        command, out, log = COMMANDS[name], folder / name, folder / f"{name}.jsonl"
        words = command.words.split()
        if "{teacher}" in words:
            teacher = run("noisy-student")[1] / "round0" / "teacher"
            words[words.index("{teacher}")] = str(teacher)
        code, printed = run_command(words, out, command.stages, log, programs)
        assert code == 0, printed
        return words, out, events_of(log)

    return run


def draw(command, events, count, seed):
    """Points of a command, in the order of its stages: one in each, if they suffice."""
    rng = random.Random(f"{seed} {command.words}")
    rounds, rest = divmod(count, len(command.stages))
    chosen = [*command.stages * rounds, *rng.sample(command.stages, rest)]
    return [
        Point(stage, rng.randint(1, events[stage]))
        for stage in sorted(chosen, key=command.stages.index)
    ]


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_killed_at_drawn_points_ends_bit_equal(
    whole, tmp_path, programs, pytestconfig, name
):
    command = COMMANDS[name]
    words, expected, events = whole(name)
    points = pytestconfig.getoption("--kill-points", None) or POINTS
    count = round(points * command.share)
    seed = pytestconfig.getoption("--kill-seed", None) or SEED
    log = tmp_path / "log.jsonl"

    def run(out, *points):
        return run_command(words, out, command.stages, log, programs, *points)

    out = tmp_path / "killed"
    for number, point in enumerate(draw(command, events, count, seed)):
        code, printed = run(out, point)
        if code == 0:  # A resumed command has fewer events, and it ended.
            assert_same(out, expected)
            out = tmp_path / f"killed again {number}"
            code, printed = run(out, point)
        assert code == -signal.SIGKILL, f"{point}: {code}: {printed}"
        print(point, log.read_text().splitlines()[-1])
    code, printed = run(out)
    assert code == 0, printed
    assert_same(out, expected)


def test_a_second_sigterm_during_a_save_ends_a_run_at_once_and_loses_nothing(
    whole, tmp_path, programs, pytestconfig
):
    command = COMMANDS["features"]
    words, expected, _ = whole("features")
    lines = map(json.loads, expected.with_suffix(".jsonl").read_text().splitlines())
    first = next(event for _, event, name in lines if name == "step")
    out, log = tmp_path / "stopped", tmp_path / "log.jsonl"

    def run(*points):
        return run_command(words, out, command.stages, log, programs, *points)

    rng = random.Random(pytestconfig.getoption("--kill-seed", None) or SEED)
    # The first step has no save before it: what follows is the save that it asks for.
    second = first + rng.randint(1, 30)
    points = [Point("metrics", event, signal.SIGTERM) for event in (first, second)]
    code, printed = run(*points)
    assert code == -signal.SIGTERM, printed
    assert "checkpoints/" in log.read_text().splitlines()[-1]
    code, printed = run()
    assert code == 0, printed
    assert_same(out, expected)


def assert_same(folder: Path, other: Path):
    """Asserts that two folders hold the same, to the bit except for times."""
    assert files(folder) == files(other)
    restore = ocp.StandardCheckpointer().restore
    for path in map(folder.joinpath, files(folder)):
        twin = other / path.relative_to(folder)
        if path.name in ("model", "rest"):
            chex.assert_trees_all_equal(restore(path), restore(twin))
        elif path.name == "metrics.jsonl":
            lines = [read_metrics(file.parent) for file in (path, twin)]
            assert untimed(lines[0]) == untimed(lines[1])
        elif path.suffix == ".json":
            moved = path.read_text().replace(str(folder), str(other))
            assert untimed(json.loads(moved)) == untimed(json.loads(twin.read_text()))
        elif path.suffix == ".npy":
            assert path.read_bytes() == twin.read_bytes()


def files(folder: Path):
    """The paths below a folder whose contents do not depend on the time.

    Of checkpoints, only the items of the last one: a killed run may leave older ones.
    """
    found = set()
    for path in folder.rglob("*"):
        if "checkpoints" not in path.parts and path.name != "labelling_times.json":
            found.add(path.relative_to(folder))
    for checkpoints in folder.rglob("checkpoints"):
        last = max(checkpoints.iterdir(), key=lambda path: int(path.name))
        found |= {(last / name).relative_to(folder) for name in ("model", "rest")}
    return found


def untimed(tree):
    """JSON without times."""
    if isinstance(tree, dict):
        timed = ("seconds", "images_per_second", "command")
        return {k: untimed(v) for k, v in tree.items() if k not in timed}
    if isinstance(tree, list):
        return [untimed(value) for value in tree]
    return tree
