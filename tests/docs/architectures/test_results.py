import json

from docs.architectures import results


def test_measuring_replaces_the_rows_of_that_experiment_alone(tmp_path, monkeypatch):
    path = tmp_path / "rows.jsonl"
    monkeypatch.setattr(results, "PATH", path)
    rates = iter([0.123456, float("nan"), 3.0])
    experiments = {
        "norm": lambda: iter([{"net": "a", "loss": [next(rates)]}]),
        "depth": lambda: iter([{"net": "b", "loss": [next(rates)]}]),
    }
    monkeypatch.setattr(results, "EXPERIMENTS", experiments)
    results.measure(["norm", "depth"])
    results.measure(["norm"])
    rows = results.read()
    assert [row["loss"] for row in rows["norm"]] == [[3.0]]
    # What is not a number is null: JSON has no NaN.
    assert [row["loss"] for row in rows["depth"]] == [[None]]
    assert all("jax" in json.loads(line) for line in path.read_text().splitlines())
