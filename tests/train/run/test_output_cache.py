import numpy as np
import pytest

from train.errors import UserError
from train.run.output_cache import cached_rows, output_rows

ROOM = np.broadcast_to(np.float32(0), (5, 2))


def batches():
    """Five images in two batches; the third is unreadable, the sixth row is padding."""
    for index in ([0, 1, 2], [3, 4, 5]):
        index = np.array(index)
        images = (10 * index).astype(np.uint8)[:, None, None, None]
        yield {"image": images, "index": index, "mask": np.isin(index, [0, 1, 3, 4])}


def rows():
    return output_rows(lambda images: images[:, 0, 0] + np.arange(2.0), batches())


def test_rows_are_of_readable_images_only():
    found = list(rows())
    assert [list(index) for index, _ in found] == [[0, 1], [3, 4]]
    np.testing.assert_array_equal(found[1][1], [[30, 31], [40, 41]])


def test_rows_are_computed_once_and_cached(tmp_path):
    expected = [[0, 1], [10, 11], [np.nan, np.nan], [30, 31], [40, 41]]
    path = tmp_path / "rows.npy"
    np.testing.assert_array_equal(cached_rows(path, ROOM, rows()), expected)
    np.testing.assert_array_equal(np.load(path), expected)
    again = cached_rows(path, ROOM, iter([(np.array([0]), np.ones((1, 2)))]))
    np.testing.assert_array_equal(again, expected)
    assert again.dtype == np.float32


def test_the_file_is_written_atomically(tmp_path):
    def broken():
        yield next(iter(rows()))
        raise KeyboardInterrupt

    path = tmp_path / "rows.npy"
    with pytest.raises(KeyboardInterrupt):
        cached_rows(path, ROOM, broken())
    assert not path.exists()
    assert cached_rows(path, ROOM, rows())[4, 1] == 41


def test_rows_of_other_images_are_refused(tmp_path):
    path = tmp_path / "rows.npy"
    np.save(path, np.zeros((3, 2), np.float32))
    with pytest.raises(UserError, match=r"has the shape \[3, 2\], .* need \[5, 2\]"):
        cached_rows(path, ROOM, rows())
