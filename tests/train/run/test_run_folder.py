import errno
import json
import os
from types import SimpleNamespace

import pytest

from train.config import Config, Input, Optimization, Parallelism
from train.config_file import config_to_json, read_record
from train.errors import StorageError, UserError
from train.run.metrics import MetricsLog, read_metrics
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


def test_a_record_is_read_as_it_was_written(tmp_path):
    run = tmp_path / "runs" / "new"
    assert read_record(run) is None
    write_record(run, record())
    assert read_record(run) == record()
    assert [path.name for path in run.iterdir()] == ["config.json"]


def test_an_empty_folder_may_become_a_run(tmp_path):
    (tmp_path / ".DS_Store").touch()
    assert read_record(tmp_path) is None


def test_a_folder_with_other_things_is_refused(tmp_path):
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(UserError, match=f"{tmp_path} is not empty, and holds no run"):
        read_record(tmp_path)


def test_a_file_is_refused(tmp_path):
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(UserError, match="is a file; a run needs a folder"):
        read_record(file)


def test_a_folder_that_cannot_be_written_is_an_error_with_its_reason(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be written to: Not a directory"):
        write_record(tmp_path / "file" / "run", record())


def test_the_same_run_passes(tmp_path):
    check_same_run(tmp_path, record(epochs=3), "digits_resnet", Config(epochs=3))


def test_the_same_run_may_go_on_on_other_devices(tmp_path):
    there = record(parallelism=Parallelism(devices=4))
    check_same_run(
        tmp_path, there, "digits_resnet", Config(parallelism=Parallelism("pmap", 2))
    )
    local = Config(parallelism=Parallelism("pmap", bn="local"))
    with pytest.raises(UserError, match="--bn is global there and local here"):
        check_same_run(tmp_path, there, "digits_resnet", local)


def test_a_different_run_is_refused_with_the_first_fields_that_differ(tmp_path):
    config = Config(
        epochs=5, seed=1, optimization=Optimization(learning_rate=0.2, momentum=0.5)
    )
    with pytest.raises(UserError) as error:
        check_same_run(tmp_path, record(epochs=3), "digits_resnet", config)
    assert str(error.value) == (
        f"{tmp_path} holds another run: --learning-rate is 0.1 there and 0.2 here; "
        "--momentum is 0.9 there and 0.5 here; --epochs is 3 there and 5 here; and 1 "
        "more. Take another --out, or the same flags to resume that run."
    )


def test_what_changes_no_number_may_change(tmp_path):
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


def test_a_log_that_goes_on_loses_what_will_be_measured_again(tmp_path):
    with MetricsLog(tmp_path, 0) as log:
        for step in (5, 10, 15):
            log.write({"step": step, "loss": 1 / step})
    with MetricsLog(tmp_path, 10) as log:
        log.write({"step": 15, "loss": 0.5})
    expected = [(5, 1 / 5), (10, 1 / 10), (15, 0.5)]
    assert [(line["step"], line["loss"]) for line in read_metrics(tmp_path)] == expected


def test_a_line_that_was_cut_short_is_no_line(tmp_path):
    whole = json.dumps({"step": 5})
    (tmp_path / "metrics.jsonl").write_text(f'{whole}\n{{"step": 1')
    assert read_metrics(tmp_path) == [{"step": 5}]
    with MetricsLog(tmp_path, 5) as log:
        log.write({"step": 10})
    assert [line["step"] for line in read_metrics(tmp_path)] == [5, 10]


def test_a_line_is_there_as_soon_as_it_is_written(tmp_path):
    with MetricsLog(tmp_path, 0) as log:
        log.write({"step": 5})
        assert read_metrics(tmp_path) == [{"step": 5}]


def test_a_run_is_worked_on_by_one_process_at_a_time(tmp_path):
    run = tmp_path / "run"
    with lock(run):
        message = f"{run} is being worked on by process {os.getpid()}: "
        with pytest.raises(UserError, match=message), lock(run):
            pass
    with lock(run):  # It ends with its context.
        pass
    assert read_record(run) is None


def test_a_folder_that_cannot_be_locked_is_an_error_with_its_reason(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be written to: Not a directory"):
        with lock(tmp_path / "file" / "run"):
            pass


# Two are kept while a third is written; what is there need not be found again.
@pytest.mark.parametrize(("there", "needed"), [(0, 3), (1, 2), (2, 1)])
def test_there_must_be_room_for_the_checkpoints(tmp_path, monkeypatch, there, needed):
    run = tmp_path / "runs" / "new"
    for step in range(there):
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
def test_a_full_disk_is_told_with_what_is_kept(tmp_path, error):
    for step in ("7", "14", "21.orbax-checkpoint-tmp"):
        (tmp_path / "checkpoints" / step).mkdir(parents=True)
    with pytest.raises(StorageError) as told, storing(tmp_path):
        raise error
    assert str(told.value) == (
        f"{tmp_path} cannot be written to: No space left on device. It keeps the "
        "checkpoint of step 14."
    )


@pytest.mark.parametrize("error", [ValueError("a bug"), OSError(errno.ENOENT, "gone")])
def test_other_errors_stay_as_they_are(tmp_path, error):
    with pytest.raises(type(error)) as raised, storing(tmp_path):
        raise error
    assert raised.value is error
