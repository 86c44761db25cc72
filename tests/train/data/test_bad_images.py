import pytest

from train.data import BadImages, BadImagesError, DecodeError
from train.errors import UserError


def test_each_image_is_reported_once_and_counted():
    lines = []
    bad = BadImages(1000, say=lines.append)
    for name in ("a.jpg", "b.jpg", "a.jpg"):
        bad.add(DecodeError(name, "it is empty"))
    assert len(bad) == 2
    assert bad.found == {"a.jpg": "it is empty", "b.jpg": "it is empty"}
    assert lines == [
        f"left out: {name} cannot be read as an image: it is empty"
        for name in ("a.jpg", "b.jpg")
    ]


def test_reports_go_to_stderr_by_default(capsys):
    BadImages(1000).add(DecodeError("a.jpg", "it is empty"))
    assert "a.jpg" in capsys.readouterr().err


def test_more_than_the_allowed_share_raises_with_a_list():
    bad = BadImages(200, say=lambda message: None)
    bad.add(DecodeError("a.jpg", "truncated"))
    bad.add(DecodeError("b.jpg", "it is empty"))
    with pytest.raises(BadImagesError) as caught:
        bad.add(DecodeError("c.jpg", "truncated"))
    assert str(caught.value) == (
        "3 of 200 images cannot be read, more than the allowed share of 0.01:"
        "\n  a.jpg: truncated\n  b.jpg: it is empty\n  c.jpg: truncated"
    )


def test_a_share_of_0_allows_none_and_1_allows_all():
    with pytest.raises(BadImagesError, match="1 of 10"):
        BadImages(10, max_share=0, say=print).add(DecodeError("a", "empty"))
    bad = BadImages(2, max_share=1, say=print)
    bad.add(DecodeError("a", "empty"))
    bad.add(DecodeError("b", "empty"))
    with pytest.raises(UserError, match=r"1.2 must be in \[0, 1\]"):
        BadImages(10, max_share=1.2)


def test_a_resumed_run_knows_the_images_found_before():
    lines = []
    bad = BadImages(100, say=lines.append, found={"a.jpg": "truncated"})
    bad.add(DecodeError("a.jpg", "truncated"))
    assert not lines
    with pytest.raises(BadImagesError):
        bad.add(DecodeError("b.jpg", "truncated"))
