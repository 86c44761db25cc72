"""Compares the times of two files of raw results."""

import dataclasses
from pathlib import Path

from benchmarks.measurements import Measurements, Row, read

__all__ = ["Change", "Comparison", "compare", "compare_files"]

# Entries of the header that must be equal for times to be comparable.
_SETTING = ("device", "processor", "python", "jax", "flax", "torch", "torchvision")

_Name = tuple[str, str, str]


@dataclasses.dataclass(frozen=True)
class Change:
    """A time in both files.

    Attributes:
      name: benchmark, case, candidate.
      before: median of the first file, in seconds.
      after: median of the second file, in seconds.
      spread: spreads of both files, relative to their medians.
    """

    name: _Name
    before: float
    after: float
    spread: tuple[float, float]

    @property
    def ratio(self) -> float:
        """The second time divided by the first: below 1, the second is faster."""
        return self.after / self.before

    @property
    def is_beyond_spread(self) -> bool:
        """Whether the medians differ by more than the sum of both spreads."""
        first, second = self.spread
        difference = abs(self.after - self.before)
        return difference > first * self.before + second * self.after

    def as_row(self) -> Row:
        """The change as a row of JSON, with its names; times in seconds."""
        return {
            **dict(zip(("benchmark", "case", "candidate"), self.name, strict=True)),
            "before": self.before,
            "after": self.after,
            "ratio": self.ratio,
            "spread": list(self.spread),
        }


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Comparison of two files.

    Attributes:
      changed: changes beyond the spread, the largest first.
      unchanged: number of the other times in both files.
      only_in_one: names that only one of the files has.
      differing: differences of the headers, such as "jax: 0.10.2, 0.11.0".
    """

    changed: list[Change]
    unchanged: int
    only_in_one: list[_Name]
    differing: list[str]


def compare_files(before: Path, after: Path) -> Comparison:
    """Compares two files.

    Raises:
      UserError: a file cannot be read.
    """
    return compare(read(before), read(after))


def compare(before: Measurements, after: Measurements) -> Comparison:
    """Compares the times of two measurements."""
    first, second = _timed(before), _timed(after)
    both = [
        Change(
            name,
            row["median"],
            second[name]["median"],
            (row["spread"], second[name]["spread"]),
        )
        for name, row in first.items()
        if name in second
    ]
    changed = [change for change in both if change.is_beyond_spread]
    changed.sort(key=lambda c: max(c.ratio, 1 / c.ratio), reverse=True)
    differing = [
        f"{key}: {before.header.get(key)}, {after.header.get(key)}"
        for key in _SETTING
        if before.header.get(key) != after.header.get(key)
    ]
    only_in_one = sorted(first.keys() ^ second.keys())
    return Comparison(changed, len(both) - len(changed), only_in_one, differing)


def _timed(measurements: Measurements) -> dict[_Name, Row]:
    return {
        (row["benchmark"], row["case"], row["candidate"]): row
        for row in measurements.rows
        if row.get("median") and "spread" in row
    }
