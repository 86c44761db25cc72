import dataclasses
import json
import os
import subprocess
import sys

import pytest

from train.config import Parallelism
from train.determinism import cost_of_determinism, require_determinism
from train.errors import UserError
from train.run.loop import fit

FLAG = "--xla_gpu_deterministic_ops"


@pytest.fixture
def xla_flags(monkeypatch):
    """Sets `XLA_FLAGS`, as before any array is made; returns what the call leaves."""

    def call(flags, wanted=True, started=False, backend="cpu"):
        started_too = "jax._src.xla_bridge.backends_are_initialized"
        monkeypatch.setattr(started_too, lambda: started)
        monkeypatch.setattr("jax.default_backend", lambda: backend)
        monkeypatch.setenv("XLA_FLAGS", flags)
        require_determinism(wanted)
        return os.environ["XLA_FLAGS"]

    return call


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", f"{FLAG}=true"),
        ("--xla_dump_to=a", f"--xla_dump_to=a {FLAG}=true"),
        (FLAG, FLAG),
        (f"{FLAG}=true --xla_dump_to=a", f"{FLAG}=true --xla_dump_to=a"),
        (f"{FLAG}_of_another", f"{FLAG}_of_another {FLAG}=true"),
    ],
)
def test_the_users_flags_are_kept(xla_flags, before, after):
    assert xla_flags(before) == after
    assert xla_flags(before, wanted=False) == before


def test_a_flag_that_says_the_contrary_is_refused(xla_flags):
    with pytest.raises(UserError, match=f"XLA_FLAGS has {FLAG}=false: leave out one"):
        xla_flags(f"{FLAG}=false")


def test_it_is_too_late_on_a_gpu_only(xla_flags):
    assert xla_flags("", started=True) == ""
    with pytest.raises(UserError, match=f"XLA_FLAGS={FLAG}=true in the environment"):
        xla_flags("", started=True, backend="gpu")
    assert xla_flags(FLAG, started=True, backend="gpu") == FLAG


def test_the_cost_is_said_where_there_is_one(monkeypatch):
    assert "changes nothing on a CPU" in cost_of_determinism()
    monkeypatch.setattr("jax.default_backend", lambda: "gpu")
    assert "steps are slower" in cost_of_determinism()


CODE = """
import os
from train.run import loop

def stop(*_, **__):
    from jax._src import xla_bridge
    print(xla_bridge.backends_are_initialized(), os.environ["XLA_FLAGS"])
    raise SystemExit

loop.read_record = stop
from train.__main__ import main
main(["digits_resnet", "--deterministic", "--out", "nowhere"])
"""


@pytest.mark.slow
def test_the_flag_is_set_before_any_backend_starts():
    environment = {**os.environ, "XLA_FLAGS": "--xla_dump_to="}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", CODE],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.stdout.split()[:2] == ["False", "--xla_dump_to="], done.stderr
    assert f"{FLAG}=true" in done.stdout.split()


@pytest.mark.slow
@pytest.mark.usefixtures("programs")
def test_the_config_of_a_run_records_it(tiny, tmp_path, capsys):
    config = dataclasses.replace(
        tiny,
        epochs=1,
        optimization=dataclasses.replace(tiny.optimization, warmup_epochs=0),
        parallelism=Parallelism(deterministic=True),
    )
    fit(config, tmp_path / "run")
    assert "changes nothing on a CPU: equal runs are bit-eq" in capsys.readouterr().out
    record = json.loads((tmp_path / "run" / "config.json").read_text())
    assert record["config"]["parallelism"]["deterministic"] is True
