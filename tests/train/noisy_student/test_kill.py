"""A real process, killed in every stage."""

import json
import os
import subprocess
import sys
import time

import chex
import pytest

from train.config_file import config_from_json, read_record
from train.data.pseudo_label_file import header_path, read_header
from train.run.checkpoint import Checkpoints
from train.run.metrics import read_metrics
from train.run.program import build
from train.run.run_folder import read_result

pytestmark = pytest.mark.slow

WORDS = """
noisy-student noisy_student_digits --epochs 3 --epoch-steps 30 --log-every 10
--checkpoint-every 7 --policy none --flip 0.5 --min-confidence 0.11 --per-class 60
--model-fields stage_sizes=(1,1) width=4 small_inputs=True dropout_rate=0.2
drop_path_rate=0.2 --students resnet18 width=6 resnet18 width=8
--finetune-size 10 --finetune-steps 60
""".split()
RUNS = ("round0/teacher", "round1/student", "round2/student", "final")
LABELS = ("round1/labels.npy", "round2/labels.npy")


def start(out, programs):
    return subprocess.Popen(
        [sys.executable, "-m", "train", *WORDS, "--out", str(out)],
        env={
            **os.environ,
            "JAX_PLATFORMS": "cpu",
            "JAX_COMPILATION_CACHE_DIR": str(programs),
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def is_begun(path):
    """Whether a stage has written something."""
    if path.name == "labels.npy":
        return path.exists()
    steps = [int(p.name) for p in path.glob("checkpoints/*") if p.name.isdecimal()]
    return max(steps, default=0) >= 7


def states(out):
    """The last checkpoint of each run."""
    found = {}
    for name in RUNS:
        record = read_record(out / name)
        assert record is not None
        shapes = build(config_from_json(record["config"])).shapes
        with Checkpoints(out / name) as checkpoints:
            found[name], _ = checkpoints.restore(shapes)
    return found


def lines(out):
    """The runs' metrics and results, without times."""
    timed = ("seconds", "images_per_second")
    return [
        {k: v for k, v in line.items() if k not in timed}
        for name in RUNS
        for line in [*read_metrics(out / name), read_result(out / name)]
    ]


def report(out):
    """`report.json` without times."""

    def untimed(tree):
        if isinstance(tree, dict):
            timed = ("seconds", "command")
            return {k: untimed(v) for k, v in tree.items() if k not in timed}
        return [untimed(v) for v in tree] if isinstance(tree, list) else tree

    return untimed(json.loads((out / "report.json").read_text()))


def ended(out):
    """Modification times of the files that completed stages wrote last."""
    results = [out / name / "result.json" for name in RUNS]
    labels = [header_path(out / name) for name in LABELS if has_ended(out / name)]
    paths = [path for path in (*results, *labels) if path.exists()]
    return {path: path.stat().st_mtime_ns for path in paths}


def has_ended(path):
    header = read_header(path)
    return header is not None and header["labelled"] == header["images"]


@pytest.mark.long
def test_killed_in_every_stage_it_gives_the_same_result_and_repeats_none(
    tmp_path, programs
):
    whole, out = tmp_path / "whole", tmp_path / "killed"
    process = start(whole, programs)
    printed, _ = process.communicate()
    assert process.returncode == 0, printed

    for name in (RUNS[0], LABELS[0], RUNS[1], LABELS[1], RUNS[2], RUNS[3]):
        before = ended(out)
        process = start(out, programs)
        while process.poll() is None and not is_begun(out / name):
            time.sleep(0.002)
        assert process.poll() is None, process.communicate()
        process.kill()
        process.communicate()
        assert before.items() <= ended(out).items()
        assert not (out / "report.json").exists()

    before = ended(out)
    process = start(out, programs)
    printed, _ = process.communicate()
    assert process.returncode == 0, printed
    assert "Stage 1 of 6, round0/teacher, has ended already." in printed
    assert before.items() <= ended(out).items()
    chex.assert_trees_all_equal(states(out), states(whole))
    for name in LABELS:
        assert (out / name).read_bytes() == (whole / name).read_bytes()
    assert lines(out) == lines(whole)
    assert report(out) == report(whole)
    assert (out / "report.html").exists() and (out / "report.png").exists()
