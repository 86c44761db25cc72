"""Downloads that are longer or shorter than announced."""

import io
from email.message import Message

import pytest

from cnn_flax.weights import WeightsError, sources

URL = "https://example.org/weights-0123abcd.pth"


class Response(io.BytesIO):
    """A server's answer, which counts what is read of it."""

    def __init__(self, size, announced):
        super().__init__(bytes(size))
        self.headers = Message()
        if announced is not None:
            self.headers["Content-Length"] = str(announced)
        self.most_read = 0

    def read(self, size=-1, /):
        data = super().read(size)
        self.most_read = max(self.most_read, self.tell())
        return data


@pytest.mark.parametrize(
    ("size", "announced", "message"),
    [
        (10**6, 1000, "it is longer than the 1,000 bytes announced"),
        (1000, 2000, "it ended after 1,000 of 2,000 bytes"),
        (1000, 10**13, "no weights have so many"),
        (6000, None, "it is longer than the 5,000 bytes"),
        (6000, "many", "it is longer than the 5,000 bytes"),
        (4000, 4000, "the SHA-256 of the download differs"),
    ],
)
def test_a_download_is_read_as_far_as_announced(
    tmp_path, monkeypatch, size, announced, message
):
    response = Response(size, announced)
    monkeypatch.setenv("CNN_FLAX_CACHE", str(tmp_path))
    monkeypatch.setattr("urllib.request.urlopen", lambda url, timeout: response)
    monkeypatch.setattr(sources, "_MOST_BYTES", 5000)
    with pytest.raises(WeightsError, match=f"cannot be downloaded: .*{message}"):
        sources._download(URL)
    most = announced if isinstance(announced, int) else 5000
    assert response.most_read <= most + 1
    assert not list(tmp_path.iterdir())
