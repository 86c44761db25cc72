"""The driver of atheris, with a stand-in for atheris."""

import contextlib
import sys
import types

import pytest

from benchmarks.fuzzing import guided
from benchmarks.fuzzing.readers import READERS


class StandIn(types.ModuleType):
    """Tries every file of the corpus once, as atheris does first."""

    def __init__(self):
        super().__init__("atheris")
        self.tried = 0

    @contextlib.contextmanager
    def instrument_imports(self, include):
        assert "cnn_flax" in include
        yield

    def Setup(self, arguments, function):  # noqa: N802
        self.arguments, self.function = arguments, function

    def Fuzz(self):  # noqa: N802
        from pathlib import Path

        for path in sorted(Path(self.arguments[-1]).iterdir()):
            self.function(path.read_bytes())
            self.tried += 1


@pytest.fixture
def run(monkeypatch, tmp_path):
    def run(*words):
        stand_in = StandIn()
        monkeypatch.setitem(sys.modules, "atheris", stand_in)
        monkeypatch.setattr(sys, "argv", ["guided", *words, "--out", str(tmp_path)])
        guided.main()
        return stand_in

    return run


def test_a_reader_is_given_inputs_of_its_own(run):
    done = run("metrics", "--seconds", "3")
    assert done.tried == guided._SEEDS
    assert "-max_total_time=3" in done.arguments


def test_an_exception_that_is_not_documented_ends_it(run, monkeypatch):
    def read(folder):
        raise KeyError((folder / "metrics.jsonl").stat().st_size)

    faulty = READERS["metrics"].__class__(READERS["metrics"].make, read, ValueError)
    monkeypatch.setitem(READERS, "metrics", faulty)
    with pytest.raises(KeyError):
        run("metrics")


def test_what_is_missing_is_said(monkeypatch, run):
    with pytest.raises(SystemExit, match="There is no reader 'x': safetensors, index"):
        run("x")
    monkeypatch.setitem(sys.modules, "atheris", None)
    monkeypatch.setattr(sys, "argv", ["guided", "metrics"])
    with pytest.raises(SystemExit, match="It needs atheris: pip install atheris"):
        guided.main()
