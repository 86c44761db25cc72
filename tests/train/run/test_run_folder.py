import errno
import os
from types import SimpleNamespace

import pytest

from train.config import Config, Input, Optimization, Parallelism
from train.config_file import config_to_json, read_record
from train.errors import StorageError, UserError
from train.run.run_folder import (
    check_same_run,
    check_space,
    lock,
    read_result,
    storing,
    write_record,
    write_result,
)


def record(recipe="digits_resnet", **fields):
    return {"recipe": recipe, "config": config_to_json(Config(**fields))}


def test_a_record_is_read_back_unchanged(tmp_path):
    run = tmp_path / "runs" / "new"
    assert read_record(run) is None
    write_record(run, record())
    assert read_record(run) == record()
    assert [path.name for path in run.iterdir()] == ["config.json"]


def test_an_unwritable_folder_is_an_error_with_the_reason(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be written to: Not a directory"):
        write_record(tmp_path / "file" / "run", record())


def test_the_same_run_passes(tmp_path):
    check_same_run(tmp_path, record(epochs=3), "digits_resnet", Config(epochs=3))


def test_a_run_may_be_resumed_on_other_devices(tmp_path):
    old = record(parallelism=Parallelism(devices=4))
    pmap = Config(parallelism=Parallelism("pmap", 2))
    check_same_run(tmp_path, old, "digits_resnet", pmap)
    local = Config(parallelism=Parallelism("pmap", bn="local"))
    with pytest.raises(UserError, match="--bn is global there and local here"):
        check_same_run(tmp_path, old, "digits_resnet", local)


def test_a_different_run_is_refused_with_the_first_flags_that_differ(tmp_path):
    config = Config(
        epochs=5, seed=1, optimization=Optimization(learning_rate=0.2, momentum=0.5)
    )
    with pytest.raises(UserError) as error:
        check_same_run(tmp_path, record(epochs=3), "digits_resnet", config)
    assert str(error.value) == (
        f"{tmp_path} holds another run: --learning-rate is 0.1 there and 0.2 here; "
        "--momentum is 0.9 there and 0.5 here; --epochs is 3 there and 5 here; and 1 "
        "more. Use another --out, or the same flags to resume that run."
    )


def test_flags_that_change_no_result_may_change(tmp_path):
    config = Config(input=Input(threads=3, max_bad_share=0.5))
    check_same_run(tmp_path, record(), "digits_resnet", config)


def test_another_recipe_is_another_run(tmp_path):
    message = "recipe is digits_resnet there and folder_resnet18 here"
    with pytest.raises(UserError, match=message):
        check_same_run(tmp_path, record(), "folder_resnet18", Config())


def test_a_run_has_a_result_when_it_has_ended(tmp_path):
    assert read_result(tmp_path) is None
    write_result(tmp_path, {"accuracy": 1 / 3})
    assert read_result(tmp_path) == {"accuracy": 1 / 3}


def test_a_run_is_used_by_one_process_at_a_time(tmp_path):
    run = tmp_path / "run"
    with lock(run):
        message = f"{run} is in use by process {os.getpid()}: "
        with pytest.raises(UserError, match=message), lock(run):
            pass
    with lock(run):  # The lock is released with its context.
        pass
    assert read_record(run) is None


def test_a_folder_that_cannot_be_locked_is_an_error_with_the_reason(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be written to: Not a directory"):
        with lock(tmp_path / "file" / "run"):
            pass


# Two are kept while a third is written; existing ones need no more space.
@pytest.mark.parametrize(("existing", "needed"), [(0, 3), (1, 2), (2, 1)])
def test_there_must_be_space_for_the_checkpoints(
    tmp_path, monkeypatch, existing, needed
):
    run = tmp_path / "runs" / "new"
    for step in range(existing):
        (run / "checkpoints" / str(step)).mkdir(parents=True)
    usage = SimpleNamespace(free=needed * 10**7)
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage)
    check_space(run, 10**7, keep=2)
    usage.free -= 10**6
    message = f"{needed}0.0 MB are needed for checkpoints of 10.0 MB"
    with pytest.raises(UserError, match=message):
        check_space(run, 10**7, keep=2)


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        ValueError("RESOURCE_EXHAUSTED: ... [os_error_code='28']"),
    ],
)
def test_a_full_disk_is_reported_with_the_last_checkpoint(tmp_path, error):
    for step in ("7", "14", "21.orbax-checkpoint-tmp"):
        (tmp_path / "checkpoints" / step).mkdir(parents=True)
    with pytest.raises(StorageError) as raised, storing(tmp_path):
        raise error
    assert str(raised.value) == (
        f"{tmp_path} cannot be written to: No space left on device. It keeps the "
        "checkpoint of step 14."
    )


@pytest.mark.parametrize("error", [ValueError("a bug"), OSError(errno.ENOENT, "gone")])
def test_other_errors_pass_unchanged(tmp_path, error):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "config.json").touch()
    with pytest.raises(type(error)) as raised, storing(tmp_path):
        raise error
    assert raised.value is error
