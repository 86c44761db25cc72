"""Cost and receptive field of each model, counted from its traced program."""

from collections.abc import Iterable
from typing import Any

import cnn_flax
from benchmarks.measurements import Row, read_lines, write_lines
from benchmarks.pages.folders import MEASUREMENTS
from cnn_flax.analysis import receptive_field

__all__ = ["PATH", "count", "counted", "write_counts"]

PATH = MEASUREMENTS / "models.jsonl"

# Name of a family's last map, where it is not that of the last of `stage_sizes`.
_LAST = {
    "alexnet": "pool5",
    "vgg": "stage5",
    "googlenet": "stage5",
}


def count(name: str) -> Row:
    """Counts one model, at the size that it is trained at.

    Returns:
      `model`; `image_size` in pixels; `parameters` with 1,000 classes, without
      auxiliary heads; `multiply_adds` per image; `features`, the last map;
      `receptive_field` of the last map, in pixels, gates from global poolings left out.
    """
    info = cnn_flax.model_info(name)
    model: Any = cnn_flax.create_model(name)
    summary = cnn_flax.summary(model, info.image_size)
    last = _LAST.get(info.family) or f"stage{len(model.stage_sizes)}"
    field = receptive_field(model, info.image_size, last, ignore_global=True)
    return {
        "model": name,
        "image_size": info.image_size,
        "parameters": sum(b.parameters for b in summary.blocks if b.output_shape),
        "multiply_adds": summary.multiply_adds,
        "features": last,
        "receptive_field": field.size,
    }


def write_counts(names: Iterable[str]) -> None:
    """Counts the named models and adds them to the file, or replaces them there."""
    rows = counted() if PATH.exists() else {}
    for name in names:
        rows[name] = count(name)
        write_lines(PATH, [rows[key] for key in sorted(rows)])


def counted() -> dict[str, Row]:
    """Returns the file's rows by model."""
    return {row["model"]: row for row in read_lines(PATH)}
