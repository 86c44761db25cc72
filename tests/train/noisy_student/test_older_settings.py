"""A Noisy Student's folder of an older version, which did not have all flags."""

import json
from dataclasses import replace

import pytest

from train.errors import UserError
from train.noisy_student import NoisyStudent
from train.noisy_student.plan import settings
from train.noisy_student.run import _RECORD, _is_same

STUDENT = NoisyStudent()


def record(student):
    return {"format": 1, "recipe": "a_recipe", "settings": settings(student)}


@pytest.fixture
def folder(tmp_path):
    """A folder whose settings lack `clip_norm` and `threads`."""
    old = record(STUDENT)
    del old["settings"]["clip_norm"], old["settings"]["threads"]
    (tmp_path / _RECORD).write_text(json.dumps(old))
    return tmp_path


def changed(**options):
    optimization = replace(STUDENT.config.optimization, **options)
    return replace(STUDENT, config=replace(STUDENT.config, optimization=optimization))


def test_a_folder_without_a_newer_flag_is_resumed(folder):
    assert _is_same(folder, record(STUDENT))


def test_a_newer_flag_off_its_default_is_refused(folder):
    with pytest.raises(UserError, match="--clip-norm is 0.0 there and 1.0 here"):
        _is_same(folder, record(changed(clip_norm=1.0)))


def test_a_flag_that_was_recorded_is_still_compared(folder):
    with pytest.raises(UserError, match="--momentum is 0.9 there and 0.5 here"):
        _is_same(folder, record(changed(momentum=0.5)))
