import errno
from pathlib import Path

import pytest

from cnn_flax.whole_files import write_whole


def test_old_files_stay_whole_if_the_disk_is_full(tmp_path, monkeypatch):
    first, second = tmp_path / "a", tmp_path / "b"
    write_whole({first: b"old a", second: b"old b"})
    original = Path.write_bytes

    def write_bytes(self, data):
        if self.name == "b":
            raise OSError(errno.ENOSPC, "No space left on device")
        return original(self, data)

    monkeypatch.setattr(Path, "write_bytes", write_bytes)
    with pytest.raises(OSError, match="No space"):
        write_whole({first: b"new a", second: b"new b"})
    assert (first.read_bytes(), second.read_bytes()) == (b"old a", b"old b")
    assert {path.name for path in tmp_path.iterdir()} == {"a", "b"}


def test_files_are_readable_by_others_as_the_umask_says(tmp_path):
    write_whole({tmp_path / "a": b"data"})
    other = tmp_path / "b"
    other.write_bytes(b"")
    assert (tmp_path / "a").stat().st_mode == other.stat().st_mode
