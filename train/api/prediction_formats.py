"""Predictions for other programs: JSON and CSV."""

import csv
import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

__all__ = ["as_csv", "as_json", "most_probable"]


def most_probable(row: np.ndarray, top: int) -> Iterator[tuple[int, float]]:
    """The most probable classes and their probabilities, the first one first."""
    for k in np.argsort(-row, kind="stable")[:top]:
        yield int(k), float(row[k])


def as_json(
    paths: Sequence[Path],
    probabilities: np.ndarray,
    class_names: Sequence[str],
    top: int,
) -> str:
    """A list with one object per image: `image` and its `classes`.

    Args:
      paths: n image files.
      probabilities: float `[n, K]`.
      class_names: K names.
      top: number of classes per image.
    """
    rows = [
        {
            "image": str(path),
            "classes": [
                {"class": class_names[k], "probability": round(probability, 6)}
                for k, probability in most_probable(row, top)
            ],
        }
        for path, row in zip(paths, probabilities, strict=True)
    ]
    return json.dumps(rows, indent=2)


def as_csv(
    paths: Sequence[Path],
    probabilities: np.ndarray,
    class_names: Sequence[str],
    top: int,
) -> str:
    """Rows of image, rank, class and probability, under a head; see `as_json`."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("image", "rank", "class", "probability"))
    for path, row in zip(paths, probabilities, strict=True):
        for rank, (k, probability) in enumerate(most_probable(row, top), 1):
            writer.writerow((path, rank, class_names[k], f"{probability:.6f}"))
    return text.getvalue().rstrip("\n")
