import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import operators
from benchmarks.__main__ import main
from benchmarks.measurements import Measurements, read, write


def run(*arguments, folder):
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
    )


@pytest.mark.slow
def test_quick_mode_prints_a_table_and_writes_json_from_any_folder(tmp_path):
    done = run("operators", "--quick", "--json", "new", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "device: 1 x cpu" in done.stdout
    assert "1x1 56px 64-256, forward" in done.stdout
    measured = read(tmp_path / "new" / "operators.json")
    assert (
        measured.header["command"]
        == "python -m benchmarks operators --quick --json new"
    )
    first = measured.rows[0]
    assert first["case"] == "1x1 56px 64-256, forward"
    assert first["median"] > 0
    path = str(tmp_path / "new" / "operators.json")
    done = run("compare", path, path, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "0 changed beyond the spread" in done.stdout


@pytest.mark.slow
def test_a_profile_and_a_single_start_are_in_the_raw_results(tmp_path):
    arguments = ("--candidates", "ours", "--profile", "--no-warm-start", "--no-limits")
    done = run(
        *("training", "--quick", *arguments, "--json", "a.json"), folder=tmp_path
    )
    assert done.returncode == 0, done.stderr
    (row,) = read(tmp_path / "a.json").rows
    assert row["first_step"] > 0
    assert "first_step_cold" not in row
    assert sum(share for *_, share in row["operations"]) > 0.5
    assert list(tmp_path.glob("a.profile/training_resnet18_2/**/*.xplane.pb"))


@pytest.mark.slow
def test_labelling_takes_no_more_memory_for_a_hundred_times_the_images(tmp_path):
    main(["labelling_memory", "--quick", "--json", str(tmp_path / "a.json")])
    few, many = read(tmp_path / "a.json").rows
    assert (few["case"], many["case"]) == ("100 images", "10,000 images")
    # Names take 0.2 MB, labels 0.4; the rest is what the allocator keeps.
    assert many["peak_memory"] < few["peak_memory"] + 40e6


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("opertors",), "no benchmark 'opertors'. Nearest: operators."),
        (("inference", "--models", "resnet5"), "There is no model 'resnet5'. Nearest:"),
        (("training", "--candidates", "our"), "There is no candidate 'our'. Nearest:"),
        (("inference", "--batch-size", "0"), "--batch-size: 0 is less than 1"),
        (("inference", "--blocks", "1"), "--blocks: 1 is less than 2"),
        (("training", "--plot"), "--plot draws figures of `inference`"),
        (("operators", "--profile"), "--profile is for `inference` and `training`"),
        (("inference", "--plot", "--json", "-"), "--json - writes none"),
        (("compare", "none.json", "none.json"), "none.json cannot be read"),
    ],
)
def test_bad_arguments_are_explained(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code
    assert message in capsys.readouterr().err + str(ended.value.code)


def test_rows_and_changes_are_printed_as_json_lines(tmp_path, capsys, monkeypatch):
    rows = [
        {"case": "a", "candidate": "ours", "median": seconds, "spread": 0.0}
        for seconds in (1.0, 2.0)
    ]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(operators, "measure", lambda options: iter(rows[:1]))
    main(["operators", "--json", "-"])
    printed = capsys.readouterr()
    assert json.loads(printed.out) == {"benchmark": "operators", **rows[0]}
    assert "a     ours" in printed.err
    assert not list(tmp_path.iterdir())
    for name, row in zip(("a.json", "b.json"), rows, strict=True):
        write(Path(name), Measurements({}, [{"benchmark": "operators", **row}]))
    main(["compare", "a.json", "b.json", "--json"])
    change = json.loads(capsys.readouterr().out)
    assert (change["case"], change["before"], change["ratio"]) == ("a", 1.0, 2.0)
