"""The table that `python -m benchmarks gpu` leaves."""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.gpu_parts import Part
from benchmarks.measurements import Measurements, Row, read
from benchmarks.pages.goals import GPU
from benchmarks.pages.markdown import table
from benchmarks.pages.performance import goals_table, sections
from benchmarks.tables import OURS
from train.storage import replace_file

__all__ = ["Result", "write_table"]

_SETTING = ("device", "processor", "python", "jax", "flax", "torch", "commit", "date")
_LONGEST_NAME = 80  # Characters of a kernel's name.


@dataclasses.dataclass
class Result:
    """What became of a part.

    Attributes:
      part: what was to be measured.
      path: of its raw results, which exist if anything was measured.
      state: "not reached", "interrupted", "measured", "stopped, ..." or "failed: ...".
      seconds: duration, if it ran to its end.
    """

    part: Part
    path: Path
    state: str = "not reached"
    seconds: float | None = None

    def measurements(self) -> Measurements | None:
        """Returns its raw results; None if it did not run or measured nothing."""
        if self.state == "not reached" or not self.path.exists():
            return None
        return read(self.path)


def write_table(folder: Path, results: Sequence[Result], rehearse: bool) -> None:
    """Replaces `table.md` in the folder.

    Args:
      folder: of the table.
      results: of all parts, those not reached included.
      rehearse: whether the figures mean nothing.

    Raises:
      OSError: the file cannot be written.
    """
    replace_file(folder / "table.md", "\n\n".join(_sections(results, rehearse)) + "\n")


def _sections(results: Sequence[Result], rehearse: bool) -> Iterator[str]:
    yield "# A rehearsal on the CPU" if rehearse else "# A GPU's figures"
    if rehearse:
        yield (
            "Each part ran with two images of 32 px, and for ResNet-50 with one block "
            "of ResNet-18: the figures mean nothing."
        )
    runs = {
        result.path.stem: (result.part, run)
        for result in results
        if (run := result.measurements()) is not None
    }
    if runs:
        _, first = next(iter(runs.values()))
        yield "\n".join(
            f"- {k}: {first.header[k]}" for k in _SETTING if k in first.header
        )
    yield f"## Parts\n\n{_parts(results)}"
    usual = [run for part, run in runs.values() if not part.flags]
    yield f"## Goals\n\n{goals_table(GPU, usual)}"
    for stem, (part, run) in runs.items():
        yield f"## {stem}"
        if part.flags:
            yield f"`XLA_FLAGS={part.flags}`"
        yield from sections(run)
        for row in run.rows:
            yield from _operations(row)


def _parts(results: Sequence[Result]) -> str:
    lines = []
    for result in results:
        run = result.measurements()
        rates = [
            f"{row['benchmark']} {row['images_per_second']:,.0f}"
            for row in (run.rows if run is not None else ())
            if row["candidate"] == OURS and "images_per_second" in row
        ]
        lines.append(
            [
                result.part.name,
                result.part.flags and f"`{result.part.flags}`",
                result.state.replace("|", "\\|"),
                "" if result.seconds is None else f"{result.seconds:.0f}",
                ", ".join(rates),
            ]
        )
    return table(("part", "XLA_FLAGS", "state", "s", "images/s of ours"), lines)


def _operations(row: Row) -> Iterator[str]:
    name = f"{row['benchmark']}, {row['case']}"
    if "no_profile" in row:
        yield f"No profile of {name}: {row['no_profile']}"
    if "operations" in row:
        lines = [
            [f"`{operation[:_LONGEST_NAME]}`", f"{1e3 * seconds:,.3f}", f"{share:.1%}"]
            for operation, seconds, share in row["operations"]
        ]
        header = ("longest operations", "ms in all steps", "share")
        yield f"Profile of {name}:\n\n{table(header, lines)}"
