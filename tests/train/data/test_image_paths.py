from pathlib import Path

import pytest

from train.data.image_paths import image_paths
from train.errors import UserError


@pytest.fixture
def photos(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("b.jpg", "a.PNG", "notes.txt", ".hidden.jpg", "cats/1.jpg"):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "empty").mkdir()
    return tmp_path


def names(*words):
    return [str(path) for path in image_paths(list(map(Path, words)))]


def test_a_folder_stands_for_the_images_below_it(photos):
    everything = ["photos/a.PNG", "photos/b.jpg", "photos/cats/1.jpg"]
    assert names("photos") == everything
    # Each once, in the order of the words; a file need not look like an image.
    first = ["photos/b.jpg", "photos/notes.txt"]
    assert names(*first, "photos") == [*first, "photos/a.PNG", "photos/cats/1.jpg"]


def test_a_pattern_stands_for_the_images_that_it_matches(photos):
    assert names("photos/*.jpg") == ["photos/b.jpg"]
    assert names("photos/**/*.jpg") == ["photos/b.jpg", "photos/cats/1.jpg"]
    assert names("photo*") == ["photos/a.PNG", "photos/b.jpg"]
    # A file may have such a name.
    (photos / "photos/[1].jpg").touch()
    assert names("photos/[1].jpg") == ["photos/[1].jpg"]


def test_what_has_no_image_is_named(photos):
    with pytest.raises(UserError, match="empty: no image in this folder"):
        names("empty")
    with pytest.raises(UserError, match=r"\*.gif: no image matches"):
        names("photos/*.gif")
    # A missing file is said when it is read.
    assert names("absent.png") == ["absent.png"]
