"""`docs/performance.md`: what `python -m benchmarks` measured, per device."""

import importlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.record import Record, Row, read
from benchmarks.tables import OURS, tabulate
from docs.goals import CPU, GPU, Goal, against
from docs.tables import table

__all__ = ["goals", "main", "models", "page", "section"]

_DOCS = Path(__file__).parent
_RESULTS = _DOCS / "results" / "performance"


def main() -> None:
    """Writes the page."""
    (_DOCS / "performance.md").write_text(page())


def page(results: Path = _RESULTS) -> str:
    """The whole page, in Markdown: a section a device.

    Args:
      results: folder with raw results, in it or in folders of it.
    """
    sections: dict[str, list[str]] = {}
    rows: dict[str, list[Row]] = {"cpu": [], "gpu": []}
    for path in sorted(results.rglob("*.json")):
        record = read(path)
        on_cpu = record.header["device"].endswith(" cpu")
        rows["cpu" if on_cpu else "gpu"] += record.rows
        head = f"## {record.header['device']}, {record.header['processor']}"
        pictures = _pictures(path, results)
        sections.setdefault(head, []).extend([*section(record), *pictures])
    parts = [part for head, own in sections.items() for part in (head, *own)]
    sought = (goals("CPU, float32", CPU, rows["cpu"]), goals("GPU", GPU, rows["gpu"]))
    return "\n\n".join([_HEAD, *sought, _SHORT, *parts]) + "\n"


def goals(where: str, sought: Sequence[Goal], rows: Sequence[Row]) -> str:
    """What was sought on a kind of device, and what was found."""
    head = ("figure", "times as fast as", "asked", "aim", "measured", "reached")
    return f"## Goals: {where}\n\n{table(head, against(sought, rows))}"


def models(results: Path = _RESULTS) -> str:
    """README's table, of what was measured on a CPU."""
    candidates = (OURS, "plain Flax", "torch channels_last")
    found: dict[tuple[str, str], dict[str, Row]] = {}
    for path in sorted(results.glob("cpu/*.json")):
        for row in read(path).rows:
            if row["candidate"] in candidates and "model" in row:
                case = (row["benchmark"], row["model"])
                found.setdefault(case, {})[row["candidate"]] = row
    lines = []
    for task in ("inference", "training"):
        for name in ("resnet50", "efficientnet_b0", "densenet121"):
            rows = [found[task, name][candidate] for candidate in candidates]
            rates = [f"{row['images_per_second']:.1f}" for row in rows]
            spread = max(row["spread"] for row in rows)
            lines.append([f"`{name}`, {task}", *rates, f"{spread:.0%}"])
    return table(("images/s", *candidates, "spread"), lines)


def section(record: Record) -> Iterator[str]:
    """A file's tables, each with where it is from."""
    by_name: dict[str, list[Row]] = {}
    for row in record.rows:
        by_name.setdefault(row["benchmark"], []).append(row)
    for name, rows in by_name.items():
        module = importlib.import_module(f"benchmarks.{name}")
        title = f"{module.TITLE[0].upper()}{module.TITLE[1:]}"
        yield f"### `{name}`\n\n{title}.\n\n{table(*tabulate(rows, module.COLUMNS))}"
        yield _origin(record)


def _origin(record: Record) -> str:
    head = record.header
    known = ("device", "processor", "commit", "command", "date")
    versions = ", ".join(f"{k} {v}" for k, v in head.items() if k not in known)
    return (
        f"`{head['command']}` on {head['date'][:10]}, commit {head['commit']}; "
        f"{versions}."
    )


def _pictures(path: Path, results: Path) -> Sequence[str]:
    picture = path.with_suffix(".png")
    if not picture.exists():
        return []
    place = Path("results", results.name, picture.relative_to(results)).as_posix()
    return [f"![Published accuracy against measured throughput]({place})"]


_HEAD = """# Performance

What `python -m benchmarks` measured, each figure beside its peers in one run: the
candidates take turns, block by block, each in a process of its own where a peer is from
another library. `ms` is the median of the blocks, `spread` half of the distance of
their quartiles, as a share of it, and `ours faster by` the candidate's time over ours.
`of the peak` compares the model's multiply-adds with a matrix product's in the same
run, each counted as two operations, and a training step as three passes. A start is
that of a process, until its first step has ended, from weights that are at hand: cold
without any compiled program, warm with those of the cold one.

`python -m docs.performance` writes this page from the raw results, in
[results/performance](results/performance); `python -m benchmarks NAME --json PATH`
makes them, and `python -m benchmarks compare A.json B.json` says what moved."""


_SHORT = """## Where it falls short, and why

No GPU was at hand, so nothing was measured on one. On the CPU, `jax.profiler.trace`
around two steps of `benchmarks.programs.training(NAME, {}, 8, 224, "float32")` shows:

- **Training**: convolutions and matrix products as XLA's library computes them
  (`ynn_fusion`) are most of ResNet-50's and DenseNet's steps, and what lies between the
  goal and the aim. What a gradient is computed from was computed again, across the
  rows, in each transposed copy, tap and window (67 ms of EfficientNet-B0's step in one
  copy, 197 ms of DenseNet-121's in its pooling): it is computed once now. Tried and
  slower: Winograd's F(2, 3), nine products, im2col, space-to-depth in the stem, and
  XLA's flags for the CPU.
- **ResNet-50 and DenseNet-121, inference**: the same convolutions, with less around
  them. A DenseNet's norms follow a concatenation, so that none can be folded but the
  one inside a layer.
- **A deformable convolution with gradients**: the compiler plans 25 MB; the process
  took more, with the four gradients and what the allocator keeps.
- **DenseNet-201, a warm start**: half of it is tracing, which no cache keeps, and half
  the lowering and loading of a program of 201 layers, few of which have the shapes of
  another. Tried and no faster: operations under `jax.jit`, so that equal ones are
  traced once, and BatchNorm's means without jnp.
- **ResNeXt-50, training** is at 0.60 of torch's; the aim is 0.67. Its blocks of
  32 channels multiply eight times as much as the groups of four that are in them.
  Tried and no faster: computing what their gradients read once, as elsewhere.
- **Rotations** are five times as fast as torchvision's of bytes, and less against its
  floats: 11 of 13 ms are the reading of four pixels of three channels each, which the
  compiler does for eight places at once, but loads number by number. Tried and no
  faster: planes of one channel, no division where nothing is perspective, indices
  without a sign, rows weighed first; many times slower: slices of 2 x 2 pixels, and one
  flat loop."""


if __name__ == "__main__":
    main()
