"""Finding weights: on the disk, on the Hugging Face Hub, at an address on the web."""

import contextlib
import hashlib
import http.client
import logging
import os
import pathlib
import re
import tempfile
import urllib.request
from typing import Any, BinaryIO

from cnn_flax.installing import install_command
from cnn_flax.published import published_weights
from cnn_flax.weights.errors import CheckpointError, WeightsError
from cnn_flax.weights.shards import parse_index

__all__ = ["find", "find_published"]

_log = logging.getLogger("cnn_flax")

_MOST_BYTES = 2**32  # Of a download.
_CHUNK_BYTES = 2**20

# Names of the weights in a folder, by Hugging Face's convention: a file, or the index
# of several.
_INDEX = ".index.json"
_FILES = tuple(
    name + ending
    for name in ("model.safetensors", "pytorch_model.bin")
    for ending in ("", _INDEX)
)


def find(source: str | os.PathLike[str]) -> pathlib.Path:
    """Returns the file of weights, or the folder of a run, that a source names.

    Args:
      source: a file, a folder, or the hub id `owner/name`, tried in this order; or, as
        in timm, `hf-hub:owner/name`, with `@revision` or without.

    Raises:
      WeightsError: if there is no such source, or it cannot be had from the Hub.
    """
    if isinstance(source, str):
        match = re.fullmatch(r"hf[-_]hub:([\w.-]+/[\w.-]+)(?:@([\w./-]+))?", source)
        if match:
            return _from_hub(match[1], match[2])
    path = pathlib.Path(source).expanduser()
    if path.is_dir():
        return _in_folder(path)
    if path.exists() and not path.is_file():
        raise WeightsError(f"{path} is no regular file.")
    if path.exists():
        return path
    if isinstance(source, str) and re.fullmatch(r"[\w.-]+/[\w.-]+", source):
        return _from_hub(source)
    raise WeightsError(f"There is no file or folder {source}.")


def find_published(name: str) -> pathlib.Path:
    """Returns the file of a model's first published weights, downloaded if needed.

    Raises:
      WeightsError: if there are none, or they cannot be downloaded.
    """
    published = published_weights(name)
    if not published:
        raise WeightsError(
            f"No weights are published for {name}; name a file, a folder or a run."
        )
    first = published[0]
    return _from_hub(first.hub_id) if first.hub_id else _download(str(first.url))


def _in_folder(folder: pathlib.Path) -> pathlib.Path:
    for file in _FILES:
        if (folder / file).exists():
            return folder / file
    if (folder / "config.json").exists():
        return folder
    raise WeightsError(
        f"{folder} holds no weights: no {' or '.join(_FILES)}, nor a run's config.json."
    )


def _from_hub(repository: str, revision: str | None = None) -> pathlib.Path:
    """The file of weights of a repository; its `config.json` comes with it."""
    by_hand = (
        f"By hand: download https://huggingface.co/{repository}/resolve/main/"
        f"{_FILES[0]} and give the file's path."
    )
    try:
        import huggingface_hub
        from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
    except ImportError as error:
        raise WeightsError(
            f"There is no file or folder {repository}; to look for it on the Hugging "
            f"Face Hub, install the extra: {install_command('hub')}. {by_hand}"
        ) from error
    reason, offline = "", False

    def download(file: str) -> pathlib.Path:
        options: dict[str, Any] = {"revision": revision} if revision else {}
        options["local_files_only"] = offline
        return pathlib.Path(
            huggingface_hub.hf_hub_download(repository, file, **options)
        )

    for file in _FILES:
        shard = ""
        try:
            path = download(file)
            for shard in _shards(path):
                download(shard)
            # What the weights are of; they can do without.
            with contextlib.suppress(EntryNotFoundError, OSError, ValueError):
                download("config.json")
            return path
        except EntryNotFoundError as error:
            reason = reason or str(error)
            if shard:
                reason = f"{shard}, which {file} names, is missing: {error}"
                break
            # The network is down; the next file may be in the local cache.
            offline = isinstance(error, LocalEntryNotFoundError)
        except (OSError, ValueError) as error:
            reason = str(error)
            break
    raise WeightsError(
        f"There is no file or folder {repository}, and the Hugging Face Hub does not "
        f"give it: {reason.partition(chr(10))[0]} {by_hand}"
    )


def _shards(path: pathlib.Path) -> tuple[str, ...]:
    """The names of the files that an index lists; none for other files."""
    if not path.name.endswith(_INDEX):
        return ()
    try:
        return tuple(parse_index(path.read_bytes()).shards)
    except CheckpointError as error:
        raise WeightsError(f"{path} {error}.") from error


def _download(url: str) -> pathlib.Path:
    """Downloads into our cache; the file's name holds digits of its SHA-256."""
    folder = pathlib.Path(os.environ.get("CNN_FLAX_CACHE", "~/.cache/cnn_flax"))
    path = folder.expanduser() / url.rpartition("/")[2]
    by_hand = f"By hand: put the file at {path}, or give its path."
    if path.exists():
        if not _has_digest(path, url):
            raise WeightsError(
                f"{path} is not the file at {url}: its SHA-256 differs. Remove it to "
                "download it again."
            )
        return path
    _log.info("Downloading %s to %s.", url, path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # The file appears under its name only when complete.
        with tempfile.TemporaryDirectory(dir=path.parent) as part:
            new = pathlib.Path(part) / path.name
            with (
                urllib.request.urlopen(url, timeout=60) as response,
                new.open("wb") as f,
            ):
                _copy(response, f)
            if not _has_digest(new, url):
                raise OSError("the SHA-256 of the download differs")
            new.replace(path)
    except (OSError, http.client.HTTPException) as error:
        raise WeightsError(f"{url} cannot be downloaded: {error}. {by_hand}") from error
    return path


def _copy(response: Any, file: BinaryIO) -> None:
    """Copies a download, but no more of it than was announced.

    Raises:
      OSError: if it is longer or shorter than announced, or than any weights are.
    """
    header = response.headers.get("Content-Length", "")
    announced = int(header) if header.isdecimal() and len(header) < 16 else None
    most = _MOST_BYTES if announced is None else announced
    if most > _MOST_BYTES:
        raise OSError(f"it has {most:,} bytes, and no weights have so many")
    copied = 0
    while data := response.read(min(_CHUNK_BYTES, most + 1 - copied)):
        copied += len(data)
        if copied > most:
            raise OSError(f"it is longer than the {most:,} bytes announced")
        file.write(data)
    if announced is not None and copied < announced:
        raise OSError(f"it ended after {copied:,} of {announced:,} bytes")


def _has_digest(path: pathlib.Path, url: str) -> bool:
    digits = re.search(r"-([0-9a-f]{8,})\.\w+$", url)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return digits is not None and digest.startswith(digits[1])
