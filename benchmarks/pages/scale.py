"""`docs/scale.md`, section "Planning a run": nets compiled for chips that are not here.

The figures are those of `docs/measurements/plan.jsonl`, one line per net and topology,
which `python -m train plan RECIPE --topology .. --json docs/measurements/plan.jsonl`
appends. Other sections of the page stay as they are.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.pages.folders import DOCS, MEASUREMENTS
from benchmarks.pages.markdown import table

__all__ = ["replace_section", "section"]

_FILE = "plan.jsonl"
_TITLE = "Planning a run"
_RECIPE = "imagenet_resnet50"  # Of the table; other recipes are raw results only.

Record = Mapping[str, Any]


def main() -> None:
    """Writes the section."""
    path = DOCS / "scale.md"
    lines = (MEASUREMENTS / _FILE).read_text("utf-8").splitlines()
    text = path.read_text("utf-8") if path.exists() else "# From a laptop to a pod\n"
    written = section([json.loads(line) for line in lines])
    path.write_text(replace_section(text, written), "utf-8")


def replace_section(page: str, section: str) -> str:
    """The page with its section of the same title replaced, or with it appended."""
    title = section.partition("\n")[0]
    old = re.compile(rf"^{re.escape(title)}\n.*?(?=^## |\Z)", re.DOTALL | re.MULTILINE)
    if not old.search(page):
        return f"{page.rstrip()}\n\n{section.rstrip()}\n"
    replaced = old.sub(lambda _: f"{section.rstrip()}\n\n", page, count=1)
    return replaced.rstrip() + "\n"


def section(records: Sequence[Record]) -> str:
    """The section, from the file's lines; a net and topology's last one counts."""
    found = {
        (record["model"], record["chips"], record["topology"]): record
        for record in records
        if record["recipe"] == _RECIPE
    }
    rows = [_row(found[key]) for key in sorted(found)]
    versions = sorted({_versions(record) for record in records})
    return f"""## {_TITLE}

`python -m train plan RECIPE --topology v5e:4x8` compiles a recipe's training,
evaluation and labelling steps for TPUs on a machine without one, with libtpu
(`pip install 'cnn-flax[plan]'`, on Linux). Nothing is executed. It prints for each step

- the memory of a chip, as the compiler lays it out: state and batch, outputs not
  aliased with the donated state, temporaries, the program, and their share of the
  chip's; or that the step does not fit, and then no time;
- operations, bytes moved to and from the chip's memory, and collectives with the bytes
  of their results;
- the time by the chip's roofline: of operations, traffic and links, the slowest. It is
  the least that the chip's figures allow, not a forecast: small collectives wait, and
  no net keeps a chip's matrix units busy all the time;

and for the run its time and chip-hours at that speed, and the largest batch that fits.
The search starts from the run's batch. Once two batches fit, it takes a linear estimate
from the two largest that do: it compiles a little above the estimate until a batch does
not fit, then at the estimate, if that is between the largest that fits and the smallest
that does not. If it is not, or fewer than two fit, it compiles at their middle, or at
twice the largest while all fit. It ends when the two are within a sixteenth.
`--no-largest-batch` skips it, `--steps training` leaves out the other steps, and
`--train-images` and `--eval-images` give the numbers of images that are not at hand.

`--topology gpu:h200x8` prints the same from the program for as many CPU devices, as an
estimate: XLA fuses more on a GPU, so real traffic and memory are lower.

The table has the training step of `{_RECIPE}` with `--dtype bfloat16`, and with
`--remat stage` where the row says so. Images/s are over all chips, the other figures
per chip. `--model`, `--topology`, `--batch-size` and `--image-size` make other rows.

{table(_HEADER, rows)}

GB are 10^9 bytes; a v5e has 17.18 GB. Times are in milliseconds. Raw results, with the
other steps that were compiled:
[measurements/{_FILE}](measurements/{_FILE}) ({"; ".join(versions)}).

{_FINDINGS}"""


_HEADER = (
    "net",
    "px",
    "chips",
    "images per chip",
    "memory GB",
    "temporaries GB",
    "TFLOP",
    "traffic GB",
    "collectives",
    "their MB",
    "compute",
    "memory",
    "links",
    "step",
    "images/s",
)


def _row(record: Record) -> list[str]:
    step = record["steps"]["training"]
    cost, roof = step["cost"], step["roofline"]
    net = f"`{record['model']}`"
    if record.get("remat", "none") == "stage":
        net += " `--remat stage`"
    per_chip = step["images"] // record["chips"]
    start = [net, record["image_size"], record["chips"], per_chip]
    if cost is None:
        return [*start, "does not fit", *[""] * (len(_HEADER) - 4)]
    cells = [
        *start,
        f"{step['needs'] / 1e9:.2f}",
        f"{cost['temporaries'] / 1e9:.2f}",
        f"{cost['flops'] / 1e12:.2f}",
        f"{cost['traffic'] / 1e9:.1f}",
        str(sum(found["count"] for found in cost["collectives"])),
        f"{sum(found['bytes'] for found in cost['collectives']) / 1e6:.1f}",
    ]
    if roof is None:
        return [*cells, *[""] * 3, "does not fit", ""]
    return [
        *cells,
        *(f"{1e3 * roof[name]:.2f}" for name in ("compute", "memory", "links")),
        f"{1e3 * roof['seconds']:.1f}",
        f"{step['images'] / roof['seconds']:,.0f}",
    ]


def _versions(record: Record) -> str:
    found = record["versions"]
    return f"{record['date']}, JAX {found['jax']}, libtpu {found['libtpu']}"


_FINDINGS = """### What the compiled programs show

- The chip's memory binds every net but VGG-16, not operations: 256 images take
  ResNet-50 31 ms of operations and 125 ms of traffic, EfficientNet-B0 4 and 71,
  DenseNet-201 34 and 301. VGG-16, whose convolutions are wide and have no BatchNorm, is
  bound by operations: 117 and 87 ms.
- 256 images per chip fit, of 17.2 GB: EfficientNet-B0 takes 3.9, ResNet-50 9.5, VGG-16
  12.3, and DenseNet-201, whose layers each read all before them, 16.2.
- EfficientNet-B7 at 600 px has room for 32 images per chip, and EfficientNet-L2 at 475
  px, whose state alone is 3.9 GB, takes 11.4 GB with 8, and 12.9 on several chips.
  Both compute their stages again. At the roofline, an L2 trains on 17 images per second
  and chip: an epoch of ImageNet takes 256 chips five minutes, and 8 chips 2 h 40 min.
- Deformable convolutions are gathers, which move memory: 64 images take
  `resnet50_dcn` 78 ms of traffic and 6 of operations.
- The links do not bind: the 148 all-reduces of ResNet-50, 56 MB, take 0.5 ms of its 125
  over 8 chips, and 0.55 over 256; the 285 MB of VGG-16's gradients 2.8 of 117, and the
  987 MB of EfficientNet-L2's 9.8 of 482. A chip's program does not change with their
  number.
- A small ResNet-18 over four chips (`resnet18` in the raw results) has 52 all-reduces
  and no other collective. BatchNorm has two per layer forward, the sum of the first
  rows and the sums about their mean, and one backward; those of parallel layers are
  merged. The gradients of all convolutions are merged into one. It is in bfloat16, the
  convolutions' dtype, since the compiler sums over chips before it widens; that of the
  head, and all of BatchNorm's sums, are in float32.
- Evaluation has no collective on one host; across hosts it gathers a few numbers per
  image.
- Only the plain formulations are compiled, not those for a CPU; a test counts the
  operations.
- Whether a batch is evaluated in parts, as on a single CPU device, depends on the
  devices that are compiled for, not on the machine that compiles.
"""

if __name__ == "__main__":
    main()
