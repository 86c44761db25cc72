import errno
import os
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from train import storage
from train.storage import (
    allocate,
    create_file,
    read_json,
    replace_file,
    try_lock,
    write_json,
)


@pytest.fixture(params=[True, False], ids=["posix_fallocate", "zeros"])
def how(request, monkeypatch):
    """With and without `os.posix_fallocate`, which macOS does not have."""
    if request.param and not hasattr(os, "posix_fallocate"):
        pytest.skip("this system has no posix_fallocate")
    if not request.param:
        monkeypatch.delattr(os, "posix_fallocate", raising=False)


@pytest.mark.usefixtures("how")
@pytest.mark.parametrize("size", [3, 8, 20, 2**20 + 5, 2**21])
def test_a_file_grows_to_the_size_and_keeps_its_contents_and_position(tmp_path, size):
    path = tmp_path / "file"
    with path.open("w+b") as file:
        file.write(b"contents")
        file.seek(3)
        allocate(file, size)
        assert file.tell() == 3
        assert path.stat().st_size == max(size, 8)
        file.write(b"!")
    assert path.read_bytes() == b"con!ents".ljust(size, b"\0")


def test_a_full_disk_is_an_error_without_posix_fallocate_too(tmp_path, monkeypatch):
    class FullFile:
        def __getattr__(self, name):
            return getattr(file, name)

        def write(self, data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.delattr(os, "posix_fallocate", raising=False)
    with (tmp_path / "file").open("w+b") as file:
        with pytest.raises(OSError, match="No space left") as error:
            allocate(FullFile(), 10)  # pyright: ignore
    assert error.value.errno in storage.DISK_FULL


def test_json_is_written_atomically(tmp_path, monkeypatch):
    path = tmp_path / "file.json"
    assert read_json(path) is None
    write_json(path, {"a": 1})
    assert read_json(path) == {"a": 1}

    def fail(*paths):
        raise OSError("killed")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="killed"):
        write_json(path, {"a": 2})
    assert read_json(path) == {"a": 1}
    assert list(tmp_path.iterdir()) == [path]


def together(write):
    """Results of 8 threads that call `write` with their number at once."""
    start = threading.Barrier(8)

    def work(number):
        start.wait()
        return write(number)

    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(work, range(8)))


def test_writers_of_one_file_do_not_disturb_each_other(tmp_path):
    path = tmp_path / "file"
    for _ in range(20):
        together(lambda number: replace_file(path, f"{number}" * 1000))
        text = path.read_text()
        assert text == text[0] * 1000
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("code", [0, errno.EPERM, errno.ENOSYS])
def test_one_writer_creates_a_file_with_hard_links_and_without(
    tmp_path, monkeypatch, code
):
    def fail(*paths):
        raise OSError(code, os.strerror(code))

    if code:
        monkeypatch.setattr(os, "link", fail)
    path = tmp_path / "file"
    created = together(lambda number: create_file(path, f"{number}" * 1000))
    assert sum(created) == 1
    assert path.read_text() == f"{created.index(True)}" * 1000
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_cannot_be_created_is_not_there(tmp_path, monkeypatch):
    def fail(*paths):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "link", fail)
    with pytest.raises(OSError, match="No space left"):
        create_file(tmp_path / "file", "text")
    assert not list(tmp_path.iterdir())


def test_a_lock_is_held_once_and_released_when_the_file_is_closed(tmp_path):
    path = tmp_path / "lock"
    with path.open("w") as first, path.open("w") as second:
        assert try_lock(first)
        assert not try_lock(second)
    with path.open("w") as third:
        assert try_lock(third)
