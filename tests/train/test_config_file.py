import dataclasses
import json

import pytest

from train.config import Augment, Config, Input, Network, Optimization, Parallelism
from train.config_file import (
    as_begun,
    config_from_json,
    config_to_json,
    flag_values,
    read_record,
    recorded_fields,
)
from train.errors import UserError


def test_a_config_survives_json():
    config = Config(
        input=Input(data="idx:here", mean=(0.1, 0.2, 0.3)),
        network=Network(model_fields={"width": 16, "shortcut": "none"}),
        augment=Augment(flip=0.5),
        optimization=Optimization(optimizer="adamw"),
        seed=7,
    )
    written = json.loads(json.dumps(config_to_json(config)))
    assert config_from_json(written) == config


def test_fields_missing_from_an_older_config_take_their_defaults():
    written = config_to_json(Config(epochs=7))
    del written["seed"], written["input"]["batch_size"]
    assert config_from_json(written) == Config(epochs=7)


def test_a_run_of_an_older_version_goes_on_as_it_began():
    written = config_to_json(Config())
    del written["optimization"]["precise_bn"]
    assert config_from_json(written).optimization.precise_bn == "never"
    known = recorded_fields({"config": written})
    assert as_begun(Config(), known) == config_from_json(written)
    # A wish that was given is kept, and compared with the run's.
    given = Config(optimization=Optimization(precise_bn="always"))
    assert as_begun(given, known) == given
    # A run of this version has the field.
    known = recorded_fields({"config": config_to_json(Config())})
    assert known == flag_values(Config()).keys()
    assert as_begun(Config(), known) == Config()


def test_a_group_is_read_by_the_name_that_older_versions_wrote():
    written = config_to_json(Config(parallelism=Parallelism("pmap", 2)))
    written["spread"] = written.pop("parallelism")
    assert config_from_json(written) == Config(parallelism=Parallelism("pmap", 2))


def test_an_unknown_field_is_named():
    with pytest.raises(UserError, match="'colour'"):
        config_from_json({"augment": {"colour": 1}})


def test_every_field_is_one_flag():
    groups = dataclasses.asdict(Config()).values()
    count = sum(len(g) if isinstance(g, dict) else 1 for g in groups)
    assert len(flag_values(Config())) == count


def test_an_empty_folder_may_become_a_run(tmp_path):
    (tmp_path / ".DS_Store").touch()
    assert read_record(tmp_path) is None


def test_a_folder_with_other_files_is_refused(tmp_path):
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(UserError, match=f"{tmp_path} is not empty, and holds no run"):
        read_record(tmp_path)


def test_a_file_is_refused(tmp_path):
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(UserError, match="is a file; a run needs a folder"):
        read_record(file)
