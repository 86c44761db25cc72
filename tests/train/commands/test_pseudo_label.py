from pathlib import Path

import pytest

from train.commands.pseudo_label import PseudoLabel
from train.errors import UserError


@pytest.mark.parametrize(
    ("data", "flags", "message"),
    [
        ("digits", {"shards": "0/2"}, "--shards 0/2 needs --data shards:PATTERN"),
        ("digits", {"top": 8}, "--top 8 needs --data shards:PATTERN"),
        ("shards:*.tar", {"split": "train"}, "--split train: shards have no splits"),
    ],
)
def test_flags_that_the_data_has_no_use_for_are_refused(data, flags, message):
    with pytest.raises(UserError, match=message):
        PseudoLabel(Path("run"), data, Path("out"), **flags)()
