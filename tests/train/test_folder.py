import json

import pytest

from train.config import Config, Devices, Optimization, config_to_json
from train.errors import UserError
from train.folder import (
    MetricsLog,
    check_same,
    read_metrics,
    read_record,
    read_result,
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
    check_same(tmp_path, record(epochs=3), "digits_resnet", Config(epochs=3))


def test_the_same_run_may_go_on_on_other_devices(tmp_path):
    there = record(spread=Devices(devices=4))
    check_same(tmp_path, there, "digits_resnet", Config(spread=Devices("pmap", 2)))
    local = Config(spread=Devices("pmap", bn="local"))
    with pytest.raises(UserError, match="--bn is global there and local here"):
        check_same(tmp_path, there, "digits_resnet", local)


def test_a_different_run_is_refused_with_the_first_fields_that_differ(tmp_path):
    config = Config(
        epochs=5, seed=1, optimization=Optimization(learning_rate=0.2, momentum=0.5)
    )
    with pytest.raises(UserError) as error:
        check_same(tmp_path, record(epochs=3), "digits_resnet", config)
    assert str(error.value) == (
        f"{tmp_path} holds another run: --learning-rate is 0.1 there and 0.2 here; "
        "--momentum is 0.9 there and 0.5 here; --epochs is 3 there and 5 here; and 1 "
        "more. Take another --out, or the same flags to go on with that run."
    )


def test_another_recipe_is_another_run(tmp_path):
    message = "recipe is digits_resnet there and folder_resnet18 here"
    with pytest.raises(UserError, match=message):
        check_same(tmp_path, record(), "folder_resnet18", Config())


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
