"""Checkpoints of a run that were damaged after they had been saved."""

import shutil

import chex
import numpy as np
import pytest

from cnn_flax import load_pretrained
from cnn_flax.weights import WeightsError
from tests.support.runs import untrained_run
from tests.train.run.test_checkpoint import shapes, state
from train.__main__ import main
from train.run.checkpoint import Checkpoints
from train.run.load import load_run


def truncate(checkpoint):
    """Cuts every file of arrays in half."""
    for file in checkpoint.rglob("d/*"):
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def flip(checkpoint):
    """Changes one byte of every file of arrays."""
    for file in checkpoint.rglob("d/*"):
        data = bytearray(file.read_bytes())
        data[len(data) // 2] ^= 255
        file.write_bytes(data)


def empty(checkpoint):
    """Leaves no byte in any file."""
    for file in checkpoint.rglob("*"):
        if file.is_file():
            file.write_bytes(b"")


def remove(what):
    """Removes files or folders of that name."""

    def damage(checkpoint):
        for path in list(checkpoint.rglob(what)):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)

    return damage


def overwrite_meta(text):
    return lambda checkpoint: (checkpoint / "meta" / "metadata").write_text(text)


DAMAGES = {
    "truncated": truncate,
    "flipped": flip,
    "empty files": empty,
    "empty folder": remove("*"),
    **{f"no {x}": remove(x) for x in ("model", "rest", "meta", "d", "_METADATA")},
    "no manifest": remove("manifest.ocdbt"),
    **{
        f"meta {x[:9]}": overwrite_meta(x)
        for x in ("{", "[]", "{}", "1", '{"format": 2, "step": 7}', "\0")
    },
    "meter": overwrite_meta('{"format": 2, "step": 9, "meter": 3}'),
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A folder with checkpoints of steps 4 and 9; tests must not change it."""
    run = tmp_path_factory.mktemp("checkpoints")
    with Checkpoints(run) as checkpoints:
        for step in (4, 9):
            checkpoints.save(step, state(float(step)), {"step": step})
    return run


@pytest.fixture
def run(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "run")


def contents(folder):
    return {
        path.relative_to(folder): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_run_goes_on_from_the_last_whole_checkpoint(run, damage):
    damage(run / "checkpoints" / "9")
    left = contents(run / "checkpoints" / "9")
    with Checkpoints(run) as checkpoints:
        restored, meta = checkpoints.restore(shapes())
        chex.assert_trees_all_equal(restored, state(4.0))
        assert meta == {"step": 4}
        assert list(checkpoints.damaged) == [9]
        place = checkpoints.set_aside()
        assert contents(place / "9") == left
        assert checkpoints.latest == 4


def test_an_empty_folder_with_a_higher_number_is_passed_over(run):
    for step in (12, 30):
        (run / "checkpoints" / str(step)).mkdir()
    with Checkpoints(run) as checkpoints:
        restored, _ = checkpoints.restore(shapes())
        assert list(checkpoints.damaged) == [30, 12]
    chex.assert_trees_all_equal(restored, state(9.0))


def test_a_save_that_was_cut_off_is_removed(run):
    shutil.copytree(
        run / "checkpoints" / "9", run / "checkpoints" / "7.orbax-checkpoint-tmp"
    )
    with Checkpoints(run) as checkpoints:
        restored, _ = checkpoints.restore(shapes())
    chex.assert_trees_all_equal(restored, state(9.0))
    assert {path.name for path in (run / "checkpoints").iterdir()} == {"4", "9"}


def test_where_none_is_whole_one_line_names_them_and_nothing_is_changed(run):
    for step in ("4", "9"):
        truncate(run / "checkpoints" / step)
    before = contents(run)
    with Checkpoints(run) as checkpoints:
        with pytest.raises(WeightsError, match="of steps 4 and 9 in .*/run") as caught:
            checkpoints.restore(shapes())
    assert len(str(caught.value).splitlines()) == 1
    assert len(str(caught.value)) < 600
    assert contents(run) == before


def test_a_damaged_checkpoint_makes_room_for_a_new_one_and_is_kept(run):
    for _ in range(2):
        truncate(run / "checkpoints" / "9")
        with Checkpoints(run) as checkpoints:
            checkpoints.restore(shapes())
            checkpoints.set_aside()
            checkpoints.save(9, state(8.0), {"step": 9})
    with Checkpoints(run) as checkpoints:
        chex.assert_trees_all_equal(checkpoints.restore(shapes())[0], state(8.0))
    kept = {path.name for path in (run / "damaged-checkpoints").iterdir()}
    assert kept == {"9", "9-2"}


@pytest.fixture
def model_run(tiny, tmp_path):
    """A run of a model, whose checkpoint of step 3 is damaged, and that of 0 is not."""
    run = untrained_run(tmp_path / "run", tiny)
    checkpoints = run / "checkpoints"
    shutil.copytree(checkpoints / "0", checkpoints / "3")
    truncate(checkpoints / "3")
    return run


def test_a_model_is_loaded_from_the_last_whole_checkpoint(model_run, caplog):
    _, variables = load_pretrained("resnet18", model_run)
    loaded = load_run(model_run)
    assert loaded.step == 0
    chex.assert_trees_all_equal(loaded.variables, variables)
    assert np.abs(variables["params"]["head"]["kernel"]).max() > 0
    messages = [record.message for record in caplog.records]
    assert len(messages) == 2
    for message in messages:
        assert "checkpoint of step 3 in" in message
        assert "that of step 0 is taken" in message


def test_programs_report_damaged_checkpoints_in_one_line(model_run, capsys):
    truncate(model_run / "checkpoints" / "0")
    assert main(["evaluate", str(model_run)]) == 2
    complaint = capsys.readouterr().err
    assert "The checkpoints of steps 0 and 3 in" in complaint
    assert "Traceback" not in complaint
