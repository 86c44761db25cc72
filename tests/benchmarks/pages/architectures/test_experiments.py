import json

from benchmarks.pages.architectures import experiments


def test_measuring_replaces_the_rows_of_that_experiment_alone(tmp_path, monkeypatch):
    path = tmp_path / "rows.jsonl"
    monkeypatch.setattr(experiments, "PATH", path)
    rates = iter([0.123456, float("nan"), 3.0])
    two = {
        "norm": lambda: iter([{"net": "a", "loss": [next(rates)]}]),
        "depth": lambda: iter([{"net": "b", "loss": [next(rates)]}]),
    }
    monkeypatch.setattr(experiments, "EXPERIMENTS", two)
    experiments.measure(["norm", "depth"])
    experiments.measure(["norm"])
    rows = experiments.read()
    assert [row["loss"] for row in rows["norm"]] == [[3.0]]
    # What is not a number is null: JSON has no NaN.
    assert [row["loss"] for row in rows["depth"]] == [[None]]
    assert all("jax" in json.loads(line) for line in path.read_text().splitlines())
