"""Folders of a run that vanish, or are something else."""

import dataclasses
import shutil
import time

import pytest

from train.errors import UserError
from train.run.loop import fit
from train.run.progress import RunProgress

pytestmark = pytest.mark.usefixtures("programs")


def test_checkpoints_that_are_a_file_are_known_at_the_start(
    tiny, quiet, tmp_path, monkeypatch
):
    monkeypatch.setattr("train.run.loop.build", None)  # Before any data is read.
    run = tmp_path / "run"
    run.mkdir()
    (run / "checkpoints").write_text("something")
    (run / ".lock").touch()
    with pytest.raises(UserError, match="is not empty, and holds no run"):
        fit(tiny, run, console=quiet)
    monkeypatch.setattr("train.run.loop.read_record", lambda run, whole: None)
    with pytest.raises(UserError, match="run/checkpoints must be a folder, and is no"):
        fit(tiny, run, console=quiet)
    (run / "checkpoints").unlink()
    (run / "checkpoints").symlink_to(tmp_path / "nowhere")
    with pytest.raises(UserError, match="run/checkpoints must be a folder, and is no"):
        fit(tiny, run, console=quiet)


def remove(run):
    shutil.rmtree(run)


def move(run):
    run.rename(run.with_name("moved"))


@pytest.mark.slow
@pytest.mark.parametrize("vanish", [remove, move])
def test_a_run_whose_folder_vanishes_ends_soon_and_says_so(
    tiny, quiet, tmp_path, monkeypatch, vanish
):
    config = dataclasses.replace(
        tiny,
        epochs=1,
        log_every=2,
        optimization=dataclasses.replace(tiny.optimization, warmup_epochs=0),
    )
    run, vanished, original = tmp_path / "run", [], RunProgress.step

    def step(self):
        original(self)
        if not vanished:
            vanish(run)
            vanished.append(time.monotonic())

    monkeypatch.setattr(RunProgress, "step", step)
    with pytest.raises(UserError, match="run was removed or moved, or parts of it"):
        fit(config, run, console=quiet)
    assert time.monotonic() - vanished[0] < 30
