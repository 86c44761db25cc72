"""`docs/performance.md`: what `python -m benchmarks` measured, by device."""

import importlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.measurements import Measurements, Row, read
from benchmarks.pages.folders import DOCS, MEASUREMENTS, PICTURES
from benchmarks.pages.goals import CPU, GPU, Goal, goal_lines
from benchmarks.pages.markdown import table
from benchmarks.plot import plot_accuracy
from benchmarks.tables import IN_PARTS, OURS, tabulate

__all__ = ["goals_section", "goals_table", "main", "page", "readme_table", "sections"]

_PERFORMANCE = MEASUREMENTS / "performance"


def main() -> None:
    """Writes the page and its pictures."""
    for path in _PERFORMANCE.rglob("*.json"):
        measured = read(path)
        if "--plot" in measured.header["command"].split():
            picture = PICTURES / _picture_name(path, _PERFORMANCE)
            plot_accuracy(measured.rows, picture, measured.header)
    (DOCS / "performance.md").write_text(page(), "utf-8")


def page(folder: Path = _PERFORMANCE, pictures: Path = PICTURES) -> str:
    """Returns the page in Markdown: a section per device and version, newest first.

    Args:
      folder: raw results, directly or in subfolders.
      pictures: folder of the pictures.
    """
    runs: dict[str, list[Measurements]] = {}
    parts: dict[str, list[str]] = {}
    for path in sorted(folder.rglob("*.json")):
        run = read(path)
        version = ".".join(run.header["jax"].split(".")[:2])
        device = f"{run.header['device']}, {run.header['processor']}, JAX {version}"
        for name in ("GLIBC_TUNABLES", "XLA_FLAGS"):
            if value := run.header.get(name):
                device = f"{device}, with {value}"
        runs.setdefault(device, []).append(run)
        parts.setdefault(device, [f"## {device}"]).extend(sections(run))
        picture = _picture_name(path, folder)
        if (pictures / picture).exists():
            title = "Published accuracy against measured throughput"
            parts[device].append(f"![{title}](pictures/{picture})")
    newest = sorted(runs, key=lambda d: _date(runs[d]), reverse=True)
    runs = {device: runs[device] for device in newest}
    on_cpu = {device: own for device, own in runs.items() if _is_of_cpu(own[0])}
    on_gpu = {device: own for device, own in runs.items() if device not in on_cpu}
    goals = [
        *(goals_section(device, CPU, own) for device, own in on_cpu.items()),
        *(goals_section(d, GPU, own) for d, own in (on_gpu or {"a GPU": []}).items()),
    ]
    all_parts = [part for device in runs for part in parts[device]]
    goals = filter(None, goals)
    return "\n\n".join([_HEAD, *goals, _SHORT, *all_parts]) + "\n"


def goals_section(
    device: str, goals: Sequence[Goal], runs: Sequence[Measurements]
) -> str:
    """Returns a device's table of goals and measured figures; empty without any.

    Goals without a figure are left out if anything was measured on the device.
    """
    if runs:
        goals = [goal for goal in goals if goal.figure_of_one_run(runs) is not None]
    if not goals:
        return ""
    return f"## Goals: {device}\n\n{goals_table(goals, runs)}"


def goals_table(goals: Sequence[Goal], runs: Sequence[Measurements]) -> str:
    """Returns the goals and their measured figures, one line each."""
    header = ("figure", "times as fast as", "required", "target", "measured", "reached")
    return table(header, goal_lines(goals, runs))


def readme_table(folder: Path = _PERFORMANCE) -> str:
    """Returns README's table of throughputs on one CPU."""
    candidates = (OURS, "plain Flax", "torch channels_last")
    lines = []
    for machine, task, title in (
        ("epyc", "inference", "inference"),
        ("epyc", "training", "training"),
        ("epyc_huge_pages", "training", "training, huge pages"),
    ):
        measured = read(folder / machine / f"{task}.json")
        for name in ("resnet50", "efficientnet_b0", "densenet121"):
            by_candidate = {
                row["candidate"]: row
                for row in measured.rows
                if row.get("model") == name and "median" in row
            }
            own = [by_candidate[c] for c in (OURS, IN_PARTS) if c in by_candidate]
            fastest = min(own, key=lambda row: row["median"])
            rows = [fastest, *(by_candidate.get(peer) for peer in candidates[1:])]
            rates = [f"{row['images_per_second']:.1f}" if row else "" for row in rows]
            spread = max(row["spread"] for row in rows if row)
            lines.append([f"`{name}`, {title}", *rates, f"{spread:.0%}"])
    return table(("images/s", *candidates, "spread"), lines)


def sections(measured: Measurements) -> Iterator[str]:
    """Yields the table of each benchmark in a file and a line with its origin."""
    by_benchmark: dict[str, list[Row]] = {}
    for row in measured.rows:
        by_benchmark.setdefault(row["benchmark"], []).append(row)
    for name, rows in by_benchmark.items():
        module = importlib.import_module(f"benchmarks.{name}")
        title = f"{module.TITLE[0].upper()}{module.TITLE[1:]}"
        yield f"### `{name}`\n\n{title}.\n\n{table(*tabulate(rows, module.COLUMNS))}"
        yield _origin(measured)


def _origin(measured: Measurements) -> str:
    header = measured.header
    others = ("device", "processor", "commit", "command", "date")
    versions = ", ".join(f"{k} {v}" for k, v in header.items() if k not in others)
    return (
        f"`{header['command']}` on {header['date'][:10]}, commit {header['commit']}; "
        f"{versions}."
    )


def _date(runs: Sequence[Measurements]) -> str:
    """The day of the newest run."""
    return max(run.header["date"][:10] for run in runs)


def _is_of_cpu(measured: Measurements) -> bool:
    return measured.header["device"].endswith(" cpu")


def _picture_name(path: Path, folder: Path) -> str:
    """Such as "epyc_accuracy.png" for `epyc/accuracy.json`."""
    return "_".join(path.relative_to(folder).with_suffix("").parts) + ".png"


_HEAD = """# Performance

Figures that `python -m benchmarks` measured. A benchmark measures ours and its peers in
one run: the candidates take turns, block by block, and each runs in its own process if
a peer comes from another library. A turn begins with a step that is not timed, except
in the older figures of the Xeon. Goals on a CPU are for float32. Where a device's
heading says `with`, the environment variable GLIBC_TUNABLES or XLA_FLAGS had that
value; GLIBC_TUNABLES for the peers too.

| column | meaning |
| --- | --- |
| `ms` | median over the blocks |
| `spread` | half of the interquartile range of the blocks, relative to the median |
| `ours faster by` | the candidate's time divided by ours |
| `of the peak` | operations per second relative to a matrix product's in the same \
run; a multiply-add is two operations, a training step three forward passes |
| `start` | from the start of a process to the end of its first step, where each \
candidate started once; the parts of one GPU run \
reuse each other's compiled programs |
| `cold start` | from the start of a process, with the weights at hand, to the end of \
its first step, without any compiled program |
| `warm start` | the same, with the programs that the cold start compiled |

`python -m benchmarks.pages.performance` writes this page and its picture from the raw
results in [measurements/performance](measurements/performance). `python -m benchmarks
NAME --json PATH` measures them, and `python -m benchmarks compare A.json B.json` shows
what changed."""


_SHORT = """## Where a figure falls short, and why

There are no GPU figures yet; `python -m benchmarks gpu --minutes 12 --out FOLDER`
measures them in order of worth, stops in time, and leaves raw results, profiles and
`table.md`; this page takes its JSON files from `measurements/performance/h200`. The
goals are for an H200 in bfloat16: its memory's 4.8 TB/s allow about 14,000 images/s in
ResNet-50's training, whose unfused BatchNorms move each of the 11.1 M activations per
image about 15 times. `--rehearse` tries the command on a CPU, with small images.

On the CPUs, the following comes from `jax.profiler.trace` around two steps of
`benchmarks.network_programs.training(NAME, {}, 8, 224, "float32")`, and from
`resource.getrusage` before and after one step.

- **Training, memory**: each step takes its temporary memory from the system again, page
  by page: 238,000 page faults and half of the processor time in EfficientNet-B0's step
  on the EPYC, 380,000 and a third in DenseNet-121's, 289,000 and a quarter in
  ResNet-50's. With huge pages, which `python -m train` uses, EfficientNet-B0's step has
  1,100 page faults, and all three reach their targets, against torch with huge pages
  too. Tried and rejected: keeping the memory in the process (`MALLOC_ARENA_MAX=1
  MALLOC_MMAP_MAX_=0`) is nearly as fast but doubles the memory.
- **Training, operations**: convolutions and matrix products, which XLA's library
  computes (`ynn_fusion`), take most of the time of ResNet-50's and DenseNet's steps. A
  gradient's inputs used to be recomputed, across the rows, in each transposed copy, tap
  and window (67 ms of EfficientNet-B0's step in one copy, 197 ms of DenseNet-121's in
  its pooling); now they are computed once. Tried and slower: Winograd's F(2, 3), nine
  products, im2col, space-to-depth in the stem, and XLA's flags for the CPU.
- **JAX 0.12** has caught up with part of what `layers/cpu` does by hand: plain Flax is
  1.11 times slower in ResNet-50's inference, where it was 1.36 times on the same kind
  of machine, and as fast in DenseNet-121's. torch.compile is 1.23 times as fast as ours
  in ResNet-50's, and slower in the other two.
- **Inference**: the activations of 16 images do not fit in the caches, and their memory
  is taken from the system again too; those of four images at a time (`ours in parts`)
  stay in the caches. The Xeon was measured without `ours in parts`. DenseNet's norms
  follow a concatenation, so only the norm inside each layer can be folded.
- **VGG-16 and AlexNet**: VGG-16's 13 convolutions are one call of the library, which
  reaches 57 % of a matrix product's rate; torch reaches 79 %. Eight such calls take 73
  of AlexNet's 76 ms. Winograd's F(2, 3) by sixteen products takes 118 ms for a
  convolution of 512 channels at 28 px, where the library takes 160 ms; 13.1 and 10.6 ms
  for 128 channels at 28 px, 233 and 210 ms at 112 px. Only VGG would gain. In parts,
  AlexNet reads the weights of its head four times.
- **A deformable convolution with gradients**: the compiler plans 25 MB; the process
  took more, which includes the four gradients and what the allocator keeps.
- **DenseNet-201, a warm start**: half of it is tracing, which no cache saves, and half
  is lowering and loading a program of 201 layers, few of which share their shapes.
  Tried and no faster: operations under `jax.jit`, so that equal ones are traced once,
  and BatchNorm's means without jnp.
- **ResNeXt-50, training** reaches 0.60 of torch's speed; the target is 0.67. Blocks of
  32 channels take eight times the multiplications of the groups of four within them.
  Tried and no faster: computing the inputs of their gradients once, as elsewhere.
- **Rotations** on the Xeon are five times as fast as torchvision's on bytes, and less
  against torchvision's on floats: reading four pixels of three channels each takes 11
  of 13 ms. The compiler vectorises it over eight positions but loads each number
  separately. Tried and no faster: planes of one channel, no division without
  perspective, unsigned indices, weighting rows first. Many times slower: slices of 2 x
  2 pixels, and one flat loop."""


if __name__ == "__main__":
    main()
