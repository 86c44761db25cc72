"""What weights are: of which model, which published ones, for which images."""

import dataclasses
import functools
import hashlib
import json
import math
import os
import pathlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from cnn_flax.info import model_info
from cnn_flax.published import PublishedWeights, published_weights
from cnn_flax.registry import list_models, nearest
from cnn_flax.weights.convert import dialect_of, fits, net_of
from cnn_flax.weights.dialects import Dialect, find_dialects, rule_of
from cnn_flax.weights.errors import WeightsError
from cnn_flax.weights.fields import wrong_field
from cnn_flax.weights.native import is_native, read_metadata
from cnn_flax.weights.read import read_checkpoint
from cnn_flax.weights.runs import read_record
from cnn_flax.weights.sources import find, find_published

__all__ = [
    "IdentifiedWeights",
    "Origin",
    "find_entry",
    "identify_weights",
    "model_of",
    "origin_of",
    "read_config",
]


_RUN_FIELDS = {"input.mean": [float], "input.std": [float]}
_DESCRIPTION = {
    "own": dict,
    "images.input_size": [int],
    "images.mean": [float],
    "images.std": [float],
}
_OPTIONS = {
    "images.crop_pct": float,
    "images.crop_mode": str,
    "images.interpolation": str,
    "own.fields": dict,
}
_RUN_OPTIONS = {
    "config": dict,
    "config.input": dict,
    "config.input.crop_pct": float,
    "config.input.interpolation": str,
    "config.network": dict,
    "config.network.model_fields": dict,
}


@dataclasses.dataclass(frozen=True)
class IdentifiedWeights:
    """What weights are, and what they require of images.

    `cnn_flax.preprocess` takes it.

    Attributes:
      name: the model that they are of.
      file: their file, or the folder of a run; None for published weights, which `path`
        downloads.
      entry: which of the model's published weights they are; None for a run, for a
        model without any, and where the source was not looked into.
      certain: whether the file says so. If not, it may be other published weights of
        the same model, which are prepared differently.
      candidates: the published weights that they may be; the first is `entry`.
      twin: another model that has the same parameters and computes something else from
        them, unless the file is known to be of `name`; None otherwise.
      fields: fields that the model needs for them where its own defaults differ.
      image_size: height and width of the images, in pixels.
      resize: short side that images are resized to before the central crop of
        `image_size`, in pixels; both sides where `crop_mode` is "squash".
      crop_pct: `image_size` as a share of `resize`.
      crop_mode: what is resized: "center" (the short side) or "squash" (both).
      interpolation: how images are resized, such as "bilinear".
      mean: what images in [0, 1] are normalised with, one value per channel.
      std: what they are then divided by, one value per channel.
    """

    name: str
    file: pathlib.Path | None
    entry: PublishedWeights | None
    certain: bool
    candidates: tuple[PublishedWeights, ...]
    twin: "Twin | None"
    fields: Mapping[str, Any]
    image_size: int
    resize: int
    crop_pct: float
    crop_mode: str
    interpolation: str
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def preparation(self) -> str:
        """Says in a few words for which weights images are prepared."""
        if self.entry is None:
            if not self.certain:
                return "no weights in particular"
            is_run = self.file is not None and self.file.is_dir()
            return f"the run {self.file}" if is_run else f"{self.file}"
        return self.entry.source if self.certain else f"{self.entry.source}, a guess"

    @functools.cached_property
    def path(self) -> pathlib.Path:
        """Their file, or the folder of a run; downloaded when first asked for.

        Raises:
          WeightsError: if it cannot be downloaded.
        """
        return self.file or find_published(self.name)


class Origin(NamedTuple):
    """Which of a model's published weights a file is.

    Attributes:
      entry: the weights.
      certain: whether the file says so; if not, several are possible, and `entry` is
        the first of them.
    """

    entry: PublishedWeights
    certain: bool


class Twin(NamedTuple):
    """Another model with the same parameters.

    Attributes:
      name: its name.
      named: whether the file says that it is of this model.
    """

    name: str
    named: bool


def identify_weights(
    name: str | None,
    source: str | os.PathLike[str] | None = None,
    *,
    entry: str | None = None,
) -> IdentifiedWeights:
    """Says which weights a source gives, and what they require of images.

    Args:
      name: one of `cnn_flax.list_models()`; None finds it from the source.
      source: as for `load_pretrained`: a file, a folder, the folder of a run, an id on
        the Hugging Face Hub, or None for the model's first published weights.
      entry: words of the `source` of the published weights that these are, as
        `find_entry` takes them; None finds out.

    Returns:
      What the weights are. Those of a run require what it was trained with. Those of a
      model without published weights, or not identified, require what `model_info`
      says.

    Raises:
      UnknownModelError: if there is no such model.
      WeightsError: if the source is missing or of another model, or no published
        weights, or several, have the words of `entry`.
    """
    if name is not None:
        model_info(name)  # It raises if there is no such model.
    if source is None:
        if name is None:
            raise WeightsError("Name a model or a source of weights.")
        published = published_weights(name)
        if not published:
            find_published(name)  # It raises, and says what to name instead.
        first = find_entry(name, entry) if entry else published[0]
        return _identified(name, None, (first,))
    path, called = find(source), str(source)
    if path.is_dir():
        return _identify_run(name, path)
    arrays = functools.cache(lambda: read_checkpoint(path))
    if name is None:
        name = model_of(called, path, arrays())
    if entry is not None:
        return _identified(name, path, (find_entry(name, entry),))
    described = _described(name, called, path)
    if described is not None:
        return described
    candidates = _candidates(name, called, path, arrays)
    return _identified(name, path, candidates, _twin(name, called, path, arrays))


def _described(name: str, called: str, path: pathlib.Path) -> IdentifiedWeights | None:
    """What the `config.json` next to a file says of it, in timm's form or ours.

    None: there is none, it is of another model, or the weights are published ones.
    """
    config = read_config(path.parent)
    images, own = config.get("pretrained_cfg", config), config.get("cnn_flax", {})
    if (
        config.get("architecture") != name
        or wrong_field({"images": images, "own": own}, _DESCRIPTION)
        or len(images["input_size"]) != 3
        or wrong_field({"images": images, "own": own}, _OPTIONS, whole=False)
        or not _is_share(images.get("crop_pct", 1))
        or _named_entry(published_weights(name), called, path) is not None
    ):
        return None
    info = model_info(name)
    size, crop_pct = images["input_size"][1], images.get("crop_pct", info.crop_pct)
    return IdentifiedWeights(
        name=name,
        file=path,
        entry=None,
        certain=True,
        candidates=(),
        twin=None,
        fields=own.get("fields", {}),
        image_size=size,
        resize=math.floor(size / crop_pct),
        crop_pct=crop_pct,
        crop_mode=images.get("crop_mode", "center"),
        interpolation=images.get("interpolation", info.interpolation),
        mean=tuple(images["mean"]),
        std=tuple(images["std"]),
    )


def _identified(
    name: str,
    file: pathlib.Path | None,
    candidates: tuple[PublishedWeights, ...],
    twin: Twin | None = None,
) -> IdentifiedWeights:
    """What the first of the published weights requires, or the model's own defaults."""
    if candidates:
        entry = images = candidates[0]
        resize, crop_mode = entry.resize, entry.crop_mode
    else:
        entry, images = None, model_info(name)
        resize, crop_mode = math.floor(images.image_size / images.crop_pct), "center"
    return IdentifiedWeights(
        name=name,
        file=file,
        entry=entry,
        certain=_are_alike(candidates),
        candidates=candidates,
        twin=twin,
        fields=entry.fields if entry else {},
        image_size=images.image_size,
        resize=resize,
        crop_pct=images.crop_pct,
        crop_mode=crop_mode,
        interpolation=images.interpolation,
        mean=images.mean,
        std=images.std,
    )


def _identify_run(name: str | None, folder: pathlib.Path) -> IdentifiedWeights:
    """What a run of `python -m train` was trained with."""
    record = read_record(folder, name)
    inputs, config = record["input"], record.get("config", {})
    if wrong := wrong_field(record, _RUN_FIELDS) or wrong_field(
        {**record, "config": config}, _RUN_OPTIONS, whole=False
    ):
        raise WeightsError(f"{folder / 'config.json'} is damaged: {wrong}.")
    options = config.get("input", {})
    if not _is_share(options.get("crop_pct", 1)):
        raise WeightsError(
            f"{folder / 'config.json'} is damaged: its crop_pct is no share of an "
            "image's side."
        )
    info = model_info(record["model"]["name"])
    size = inputs["image_size"]
    crop_pct = options.get("crop_pct", info.crop_pct)
    return IdentifiedWeights(
        name=info.name,
        file=folder,
        entry=None,
        certain=True,
        candidates=(),
        twin=None,
        fields=config.get("network", {}).get("model_fields", {}),
        image_size=size,
        resize=math.floor(size / crop_pct),
        crop_pct=crop_pct,
        crop_mode="center",
        interpolation=options.get("interpolation", info.interpolation),
        mean=tuple(inputs["mean"]),
        std=tuple(inputs["std"]),
    )


def _is_share(crop_pct: float) -> bool:
    return 1e-3 <= crop_pct <= 1


def model_of(source: str, path: pathlib.Path, arrays: Mapping[str, np.ndarray]) -> str:
    """Returns the name of the model that a file's weights are of.

    The file's metadata, its name or the `config.json` next to it may say so; otherwise
    every model is tried, which takes up to a minute.

    Args:
      source: what the user called the file: a path, a folder, or an id on the Hub.
      path: the file.
      arrays: what it holds.

    Raises:
      WeightsError: if no model fits, or more than one; names these.
    """
    models = list_models()
    for name in _named_models(source, path):
        if is_native(arrays) or fits(name, arrays):
            return name
    found = [] if is_native(arrays) else [n for n in models if fits(n, arrays)]
    if len(found) == 1:
        return found[0]
    if found:
        raise WeightsError(f"{path} fits {', '.join(found)}: name one of them.")
    raise WeightsError(f"{path} does not say which model it is of: name it.")


def origin_of(
    name: str, source: str, path: pathlib.Path, arrays: Mapping[str, np.ndarray]
) -> Origin | None:
    """Returns which of a model's published weights a file is; None if it has none.

    A file's metadata, name, digest and the `config.json` next to it are certain.
    Otherwise the arrays' names give the library, and the head the number of classes.

    Args:
      name: the model's.
      source: what the user called the file: a path, a folder, or an id on the Hub.
      path: the file.
      arrays: what it holds.
    """
    candidates = _candidates(name, source, path, lambda: arrays)
    return Origin(candidates[0], _are_alike(candidates)) if candidates else None


def _candidates(
    name: str,
    source: str,
    path: pathlib.Path,
    arrays: Callable[[], Mapping[str, np.ndarray]],
) -> tuple[PublishedWeights, ...]:
    """The published weights that a file may be; read only if nothing else says so."""
    published = published_weights(name)
    if not published:
        return ()
    named = _named_entry(published, source, path)
    return (named,) if named else _of_library(name, published, arrays())


def _named_models(source: str, path: pathlib.Path) -> list[str]:
    """The models that a file may be of by its metadata, its config or its name."""
    models = list_models()
    hints = [
        read_metadata(path).get("model"),
        read_config(path.parent).get("architecture"),
    ]
    called = pathlib.PurePath(source).name
    hints += sorted(filter(called.startswith, models), key=len, reverse=True)
    return [name for name in hints if name in models]


def _named_entry(
    published: Sequence[PublishedWeights], source: str, path: pathlib.Path
) -> PublishedWeights | None:
    """The published weights that a file's metadata, name, config or digest names."""
    own_words = read_metadata(path).get("source")
    config = read_config(path.parent)
    timm = config.get("pretrained_cfg")
    tag = timm.get("tag") if isinstance(timm, dict) else None
    called = pathlib.PurePath(source).name
    hub_names = (called, path.stem, f"{config.get('architecture')}.{tag}")
    for entry in published:
        if entry.source == own_words or _has_name(entry, hub_names, path.name):
            return entry
    digest = _digest(path) if any(entry.url for entry in published) else ""
    for entry in published:
        digits = re.search(r"-([0-9a-f]{8,})\.\w+$", entry.url or "")
        if digits and digest.startswith(digits[1]):
            return entry
    return None


def _twin(
    name: str,
    source: str,
    path: pathlib.Path,
    arrays: Callable[[], Mapping[str, np.ndarray]],
) -> Twin | None:
    """The model that a file may be of rather than of `name`."""
    twins = [dialect.twin for dialect in find_dialects(name) if dialect.twin]
    said = [m for m in _named_models(source, path) if m in (name, *twins)]
    if not twins or said[:1] == [name]:
        return None
    dialect, _ = _dialect_and_classes(name, arrays())
    if dialect is None or not dialect.twin:
        return None
    return Twin(dialect.twin, bool(said))


def find_entry(name: str, words: str) -> PublishedWeights:
    """Returns a model's published weights whose source contains the given words.

    Raises:
      WeightsError: if there are none, or more than one; names some.
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
            f"{words!r} fits several published weights of {name}: {', '.join(found)}."
        )
    hint = nearest(words, by_source) or f"There are: {', '.join(by_source) or 'none'}."
    raise WeightsError(f"No published weights of {name} fit {words!r}. {hint}")


def _has_name(entry: PublishedWeights, hub_names: Sequence[str], file: str) -> bool:
    if entry.hub_id:
        return entry.hub_id.rpartition("/")[2] in hub_names
    return bool(entry.url) and str(entry.url).rpartition("/")[2] == file


def _of_library(
    name: str,
    published: tuple[PublishedWeights, ...],
    arrays: Mapping[str, np.ndarray],
) -> tuple[PublishedWeights, ...]:
    """The weights that fit the arrays' names and head; all of them if none fit."""
    dialect, classes = _dialect_and_classes(name, arrays)
    library = dialect.library if dialect else ""
    rest = [e for e in published if e.source.startswith(library)] or list(published)
    return tuple([e for e in rest if e.classes == classes] or rest)


def _dialect_and_classes(
    name: str, arrays: Mapping[str, np.ndarray]
) -> tuple[Dialect | None, int | None]:
    """The names that the arrays have and the size of their head, where known."""
    if is_native(arrays):
        heads = [f"params/{d.head}/kernel" for d in find_dialects(name)]
        return None, next((arrays[h].shape[-1] for h in heads if h in arrays), 0)
    net = net_of(name, arrays)
    dialect = dialect_of(name, net)
    if dialect is None:
        return None, None
    head, _ = rule_of(dialect, f"{dialect.head}/kernel")
    return dialect, len(net[head]) if head in net else 0


def _are_alike(entries: Sequence[PublishedWeights]) -> bool:
    """Whether there are entries, which all require the same."""
    return len({(*_preparation(e), str(e.fields)) for e in entries}) == 1


def _preparation(entry: PublishedWeights) -> tuple[Any, ...]:
    return (
        *(entry.image_size, entry.resize, entry.crop_mode, entry.interpolation),
        *(entry.mean, entry.std),
    )


def _digest(path: pathlib.Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_config(folder: pathlib.Path) -> dict[str, Any]:
    """The `config.json` of a folder, a run's or Hugging Face's; empty if missing."""
    try:
        config = json.loads((folder / "config.json").read_text("utf-8"))
    except (OSError, RecursionError, ValueError):
        return {}
    return config if isinstance(config, dict) else {}
