"""What a file of weights is: of which model, and which of the published ones."""

import hashlib
import json
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from cnn_flax.registry import list_models, nearest
from cnn_flax.weights.convert import fits
from cnn_flax.weights.errors import WeightsError
from cnn_flax.weights.names import dialects, rule_of
from cnn_flax.weights.native import is_native, read_metadata
from cnn_flax.weights.published import PublishedWeights, published_weights

__all__ = ["Origin", "find_entry", "model_of", "model_of_run", "origin_of"]


class Origin(NamedTuple):
    """Which of a model's published weights a file is.

    Attributes:
      entry: the weights.
      certain: whether the file tells it; if not, several may be meant, and `entry` is
        the first of them.
    """

    entry: PublishedWeights
    certain: bool


def model_of_run(folder: pathlib.Path) -> str:
    """The name of a run's model.

    Raises:
      WeightsError: if the folder holds no run.
    """
    try:
        return _config(folder)["model"]["name"]
    except (KeyError, TypeError) as error:
        raise WeightsError(f"{folder} holds no run.") from error


def model_of(source: str, path: pathlib.Path, arrays: Mapping[str, np.ndarray]) -> str:
    """The name of the model that a file's weights are of.

    The file may say it, or its name, or the `config.json` beside it; else every model
    is tried, which takes up to a minute.

    Args:
      source: what the user called it: a file, a folder, or an id on the Hub.
      path: the file.
      arrays: what it holds.

    Raises:
      WeightsError: if none fits, or more than one; names these.
    """
    known = list_models()
    hints = [read_metadata(path).get("model"), _config(path.parent).get("architecture")]
    called = pathlib.PurePath(source).name
    hints += sorted(filter(called.startswith, known), key=len, reverse=True)
    for name in hints:
        if name in known and (is_native(arrays) or fits(name, arrays)):
            return name
    found = [] if is_native(arrays) else [n for n in known if fits(n, arrays)]
    if len(found) == 1:
        return found[0]
    if found:
        raise WeightsError(f"{path} fits {', '.join(found)}: name one of them.")
    raise WeightsError(f"{path} does not tell what model it is of: name it.")


def origin_of(
    name: str, source: str, path: pathlib.Path, arrays: Mapping[str, np.ndarray]
) -> Origin | None:
    """Which of a model's published weights a file is; None if it has none.

    Certain are the file's own words, its name, its digest and the `config.json` beside
    it. Otherwise the names in it tell the library, and the head the number of classes.

    Args:
      name: the model's.
      source: what the user called the file: itself, a folder, or an id on the Hub.
      path: the file.
      arrays: what it holds.
    """
    published = published_weights(name)
    told = read_metadata(path).get("source")
    config = _config(path.parent)
    timm = config.get("pretrained_cfg")
    tag = timm.get("tag") if isinstance(timm, dict) else None
    called = pathlib.PurePath(source).name
    hub_names = (called, path.stem, f"{config.get('architecture')}.{tag}")
    for entry in published:
        if entry.source == told or _has_name(entry, hub_names, path.name):
            return Origin(entry, True)
    digest = _digest(path) if any(entry.url for entry in published) else ""
    for entry in published:
        digits = re.search(r"-([0-9a-f]{8,})\.\w+$", entry.url or "")
        if digits and digest.startswith(digits[1]):
            return Origin(entry, True)
    rest = _of_library(name, published, arrays)
    alike = len({(*_preparation(entry), str(entry.fields)) for entry in rest}) == 1
    return Origin(rest[0], alike) if rest else None


def find_entry(name: str, words: str) -> PublishedWeights:
    """The one of a model's published weights whose source has those words.

    Raises:
      WeightsError: if there is none, or more than one; names some.
    """
    published = published_weights(name)
    by_source = {entry.source: entry for entry in published}
    if words in by_source:
        return by_source[words]
    found = [source for source in by_source if words.lower() in source.lower()]
    if len(found) == 1:
        return by_source[found[0]]
    if found:
        raise WeightsError(
            f"{words!r} is of several published weights of {name}: {', '.join(found)}."
        )
    hint = nearest(words, by_source) or f"There are: {', '.join(by_source) or 'none'}."
    raise WeightsError(f"No published weights of {name} are {words!r}. {hint}")


def _has_name(entry: PublishedWeights, hub_names: Sequence[str], file: str) -> bool:
    if entry.hub_id:
        return entry.hub_id.rpartition("/")[2] in hub_names
    return bool(entry.url) and str(entry.url).rpartition("/")[2] == file


def _of_library(
    name: str, published: Sequence[PublishedWeights], arrays: Mapping[str, np.ndarray]
) -> list[PublishedWeights]:
    """The weights that the names and the head leave; all, if they leave none."""
    rest = list(published)
    for dialect in dialects(name):
        head, _ = rule_of(dialect, f"{dialect.head}/kernel")
        stems = [rule_of(dialect, f"{stem}/kernel")[0] for stem in dialect.stems]
        if not any(stem in arrays for stem in stems):
            continue
        classes = len(arrays[head]) if head in arrays else 0
        by_library = [e for e in rest if e.source.startswith(dialect.library)]
        rest = by_library or rest
        rest = [e for e in rest if e.classes == classes] or rest
        break
    return rest


def _preparation(entry: PublishedWeights) -> tuple[Any, ...]:
    return (
        *(entry.image_size, entry.resize, entry.crop_mode, entry.interpolation),
        *(entry.mean, entry.std),
    )


def _digest(path: pathlib.Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _config(folder: pathlib.Path) -> dict[str, Any]:
    """The `config.json` of a folder, a run's or Hugging Face's; empty if none."""
    try:
        config = json.loads((folder / "config.json").read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return config if isinstance(config, dict) else {}
