import pytest

from train.data import BadImages, BadImagesError, DecodeError
from train.errors import UserError


def test_each_image_is_named_once_and_counted():
    said = []
    bad = BadImages(1000, say=said.append)
    for name in ("a.jpg", "b.jpg", "a.jpg"):
        bad.add(DecodeError(name, "it is empty"))
    assert len(bad) == 2
    assert bad.found == {"a.jpg": "it is empty", "b.jpg": "it is empty"}
    assert said == [
        f"left out: {name} cannot be read as an image: it is empty"
        for name in ("a.jpg", "b.jpg")
    ]


def test_the_names_go_to_stderr_by_default(capsys):
    BadImages(1000).add(DecodeError("a.jpg", "it is empty"))
    assert "a.jpg" in capsys.readouterr().err


def test_over_the_share_it_stops_with_the_list():
    bad = BadImages(200, say=lambda message: None)
    bad.add(DecodeError("a.jpg", "truncated"))
    bad.add(DecodeError("b.jpg", "it is empty"))
    with pytest.raises(BadImagesError) as caught:
        bad.add(DecodeError("c.jpg", "truncated"))
    assert str(caught.value) == (
        "3 of 200 images cannot be read, more than the share of 0.01 that is allowed:"
        "\n  a.jpg: truncated\n  b.jpg: it is empty\n  c.jpg: truncated"
    )


def test_a_share_of_0_allows_none_and_of_1_all():
    with pytest.raises(BadImagesError, match="1 of 10"):
        BadImages(10, max_share=0, say=print).add(DecodeError("a", "empty"))
    bad = BadImages(2, max_share=1, say=print)
    bad.add(DecodeError("a", "empty"))
    bad.add(DecodeError("b", "empty"))
    with pytest.raises(UserError, match=r"1.2 must be in \[0, 1\]"):
        BadImages(10, max_share=1.2)


def test_a_run_that_goes_on_knows_those_already_met():
    said = []
    bad = BadImages(100, say=said.append, known={"a.jpg": "truncated"})
    bad.add(DecodeError("a.jpg", "truncated"))
    assert not said
    with pytest.raises(BadImagesError):
        bad.add(DecodeError("b.jpg", "truncated"))
