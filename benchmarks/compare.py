"""What moved from one file of raw results to another."""

import dataclasses
from pathlib import Path

from benchmarks.measurements import Measurements, Row, read

__all__ = ["Comparison", "Move", "compare", "compare_files"]

# What must be alike for times to be comparable.
_SETTING = ("device", "processor", "python", "jax", "flax", "torch", "torchvision")

_Name = tuple[str, str, str]


@dataclasses.dataclass(frozen=True)
class Move:
    """A figure in both files.

    Attributes:
      name: benchmark, case, candidate.
      before: median of the first file, in seconds.
      after: of the second.
      spread: the spreads of both, as shares of their medians.
    """

    name: _Name
    before: float
    after: float
    spread: tuple[float, float]

    @property
    def ratio(self) -> float:
        """How many times as long the second takes: below 1, it is faster."""
        return self.after / self.before

    @property
    def is_beyond_spread(self) -> bool:
        """Whether the medians are further apart than both spreads together."""
        first, second = self.spread
        apart = abs(self.after - self.before)
        return apart > first * self.before + second * self.after


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Two records, side by side.

    Attributes:
      moved: what moved beyond the spread, the largest move first.
      still: number of figures that did not.
      lone: names of what only one of them has.
      differing: what the headers differ in, such as "jax: 0.10.2, 0.11.0".
    """

    moved: list[Move]
    still: int
    lone: list[_Name]
    differing: list[str]


def compare_files(before: Path, after: Path) -> Comparison:
    """Compares two files.

    Raises:
      UserError: one cannot be read.
    """
    return compare(read(before), read(after))


def compare(before: Measurements, after: Measurements) -> Comparison:
    """Compares the times of two records."""
    first, second = _timed(before), _timed(after)
    both = [
        Move(
            name,
            row["median"],
            second[name]["median"],
            (row["spread"], second[name]["spread"]),
        )
        for name, row in first.items()
        if name in second
    ]
    moved = [move for move in both if move.is_beyond_spread]
    moved.sort(key=lambda move: max(move.ratio, 1 / move.ratio), reverse=True)
    differing = [
        f"{key}: {before.header.get(key)}, {after.header.get(key)}"
        for key in _SETTING
        if before.header.get(key) != after.header.get(key)
    ]
    lone = sorted(first.keys() ^ second.keys())
    return Comparison(moved, len(both) - len(moved), lone, differing)


def _timed(record: Measurements) -> dict[_Name, Row]:
    return {
        (row["benchmark"], row["case"], row["candidate"]): row
        for row in record.rows
        if row.get("median") and "spread" in row
    }
