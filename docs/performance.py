"""`docs/performance.md`: what `python -m benchmarks` measured, per device."""

import importlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.record import Record, Row, read
from benchmarks.tables import IN_PARTS, OURS, tabulate
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
    records: dict[str, list[Record]] = {}
    for path in sorted(results.rglob("*.json")):
        record = read(path)
        device = f"{record.header['device']}, {record.header['processor']}"
        if set_to := record.header.get("GLIBC_TUNABLES"):
            device = f"{device}, with {set_to}"
        records.setdefault(device, []).append(record)
        pictures = _pictures(path, results)
        sections.setdefault(device, []).extend([*section(record), *pictures])
    on_gpu = {d: own for d, own in records.items() if not _is_of_cpu(own[0])}
    sought = [
        *(goals(d, CPU, own) for d, own in records.items() if d not in on_gpu),
        *(goals(d, GPU, own) for d, own in (on_gpu or {"a GPU": []}).items()),
    ]
    parts = [part for head, own in sections.items() for part in (f"## {head}", *own)]
    return "\n\n".join([_HEAD, *sought, _SHORT, *parts]) + "\n"


def goals(where: str, sought: Sequence[Goal], records: Sequence[Record]) -> str:
    """What was sought on a device, and what was found.

    Of a device that something was measured on, the rest is left out.
    """
    if records:
        sought = [goal for goal in sought if goal.in_one_of(records) is not None]
    head = ("figure", "times as fast as", "asked", "aim", "measured", "reached")
    return f"## Goals: {where}\n\n{table(head, against(sought, records))}"


def models(results: Path = _RESULTS) -> str:
    """README's table, of what was measured on one CPU."""
    candidates = (OURS, "plain Flax", "torch channels_last")
    lines = []
    for folder, task, title in (
        ("epyc", "inference", "inference"),
        ("epyc", "training", "training"),
        ("epyc_huge_pages", "training", "training, huge pages"),
    ):
        record = read(results / folder / f"{task}.json")
        for name in ("resnet50", "efficientnet_b0", "densenet121"):
            found = {
                row["candidate"]: row
                for row in record.rows
                if row.get("model") == name and "median" in row
            }
            own = [found[who] for who in (OURS, IN_PARTS) if who in found]
            fastest = min(own, key=lambda row: row["median"])
            rows = [fastest, *(found.get(peer) for peer in candidates[1:])]
            rates = [f"{row['images_per_second']:.1f}" if row else "" for row in rows]
            spread = max(row["spread"] for row in rows if row)
            lines.append([f"`{name}`, {title}", *rates, f"{spread:.0%}"])
    return table(("images/s", *candidates, "spread"), lines)


def _is_of_cpu(record: Record) -> bool:
    return record.header["device"].endswith(" cpu")


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
without any compiled program, warm with those of the cold one. Where `with` stands in a
device's heading, the variable GLIBC_TUNABLES was set so, for the peers too. A turn
begins with a step that is not timed, but for the Xeon's, which are older. Goals on a
CPU are in float32.

`python -m docs.performance` writes this page from the raw results, in
[results/performance](results/performance); `python -m benchmarks NAME --json PATH`
makes them, and `python -m benchmarks compare A.json B.json` says what moved."""


_SHORT = """## Where it falls short, and why

No GPU was at hand, so nothing was measured on one. On the CPUs, `jax.profiler.trace`
around two steps of `benchmarks.programs.training(NAME, {}, 8, 224, "float32")`, and
`resource.getrusage` before and after one, show:

- **Training, memory**: a step's temporary memory is taken from the system anew, page by
  page: 238,000 page faults and half of the processor's time in EfficientNet-B0's step
  on the EPYC, 380,000 and a third in DenseNet-121's, 289,000 and a quarter in
  ResNet-50's. In huge pages, as `python -m train` has it, EfficientNet-B0's has 1,100,
  and the three reach their aims, against torch in huge pages too. Tried and not taken:
  keeping the memory in the process (`MALLOC_ARENA_MAX=1 MALLOC_MMAP_MAX_=0`), nearly
  as fast, which doubles it.
- **Training, operations**: convolutions and matrix products as XLA's library computes
  them (`ynn_fusion`) are most of ResNet-50's and DenseNet's steps. What a gradient is
  computed from was computed again, across the rows, in each transposed copy, tap and
  window (67 ms of EfficientNet-B0's step in one copy, 197 ms of DenseNet-121's in its
  pooling): it is computed once now. Tried and slower: Winograd's F(2, 3), nine
  products, im2col, space-to-depth in the stem, and XLA's flags for the CPU.
- **Inference**: what a net makes of 16 images leaves the caches, and its memory is
  taken anew as well; of four images at a time (`ours in parts`) it stays there. The
  Xeon was measured without parts. A DenseNet's norms follow a concatenation, so that
  none can be folded but the one inside a layer.
- **VGG-16 and AlexNet**: VGG-16's 13 convolutions are one call of the library, at 57 %
  of what a matrix product reaches, where torch has 79 %; 73 of AlexNet's 76 ms are
  eight such calls. Winograd's F(2, 3) by sixteen products computes a convolution of 512
  channels of 28 px in 118 ms, the library in 160; of 128 channels of 28 px in 13.1
  and 10.6, of 112 px in 233 and 210: no net but VGG would gain. In parts, AlexNet reads
  its head's weights four times.
- **A deformable convolution with gradients**: the compiler plans 25 MB; the process
  took more, with the four gradients and what the allocator keeps.
- **DenseNet-201, a warm start**: half of it is tracing, which no cache keeps, and half
  the lowering and loading of a program of 201 layers, few of which have the shapes of
  another. Tried and no faster: operations under `jax.jit`, so that equal ones are
  traced once, and BatchNorm's means without jnp.
- **ResNeXt-50, training** is at 0.60 of torch's; the aim is 0.67. Its blocks of
  32 channels multiply eight times as much as the groups of four that are in them.
  Tried and no faster: computing what their gradients read once, as elsewhere.
- **Rotations** on the Xeon are five times as fast as torchvision's of bytes, and less
  against its floats: 11 of 13 ms are the reading of four pixels of three channels
  each, which the compiler does for eight places at once, but loads number by number.
  Tried and no faster: planes of one channel, no division where nothing is perspective,
  indices without a sign, rows weighed first; many times slower: slices of 2 x 2 pixels,
  and one flat loop."""


if __name__ == "__main__":
    main()
