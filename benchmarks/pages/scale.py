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
from benchmarks.pages.markdown import millions, table

__all__ = ["replace_section", "section"]

_FILE = "plan.jsonl"
_TITLE = "Planning a run"
# What is to be compiled, in the order of the table; what was not has an empty row.
_MODELS = (
    "resnet50",
    "efficientnet_b0",
    "efficientnet_b7",
    "efficientnet_l2",
    "densenet201",
    "vgg16",
    "resnet50_dcnv2",
)
_TOPOLOGIES = ("v5e:1x1", "v5e:2x4", "v5e:16x16")

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
    found = {(record["model"], record["topology"]): record for record in records}
    wanted = [(model, name) for model in _MODELS for name in _TOPOLOGIES]
    rows = [
        _row(found[model, name]) if (model, name) in found else _empty(model, name)
        for model, name in wanted
    ]
    missing = len([pair for pair in wanted if pair not in found])
    versions = sorted({_versions(record) for record in records})
    return f"""## {_TITLE}

`python -m train plan RECIPE --topology v5e:4x8` compiles a recipe's training,
evaluation and labelling steps for TPUs on a machine without one, with libtpu
(`pip install 'cnn-flax[plan]'`). Nothing is executed. It prints for each step

- the memory of a chip, as the compiler lays it out: state and batch, results that do
  not take over the state's memory, temporaries, the program, and their share of the
  chip's;
- operations, bytes moved to and from the chip's memory, and collectives with the bytes
  of their results;
- the time by the chip's roofline: of operations, traffic and links, the slowest. It is
  the least that the chip's figures allow, not a forecast: small collectives wait, and
  no net keeps a chip's matrix units busy all the time;

and for the run its time and chip-hours at that speed, and the largest batch that fits.
The search compiles the training step at two batches, takes a linear estimate from them,
compiles above and below it, and bisects what is left to within a sixteenth.
`--no-largest-batch` skips it, `--steps training` leaves out the other steps, and
`--train-images` and `--eval-images` give the numbers of images that are not at hand.

`--topology gpu:h200x8` prints the same from the program for as many CPU devices, as an
estimate: a GPU's compiler fuses more, so that less is moved and kept.

The training step of `imagenet_resnet50` with `--dtype bfloat16`, `--model` and 256
images a chip, at 224 px; {missing} of the {len(wanted)} were not compiled, and their
rows have no figures:

{table(_HEADER, rows)}

GB are 10^9 bytes; a v5e has 17.18 GB. Times are in milliseconds. Raw results, with the
other steps that were compiled:
[measurements/{_FILE}](measurements/{_FILE}) ({"; ".join(versions)}).

{_FINDINGS}"""


_HEADER = (
    "net",
    "parameters",
    "chips",
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
    start = [f"`{record['model']}`", millions(record["parameters"]), record["chips"]]
    if cost is None:
        return [*start, "does not fit", *[""] * (len(_HEADER) - 4)]
    return [
        *start,
        f"{step['needs'] / 1e9:.2f}",
        f"{cost['temporaries'] / 1e9:.2f}",
        f"{cost['flops'] / 1e12:.2f}",
        f"{cost['traffic'] / 1e9:.1f}",
        str(sum(found["count"] for found in cost["collectives"])),
        f"{sum(found['bytes'] for found in cost['collectives']) / 1e6:.1f}",
        *(f"{1e3 * roof[name]:.2f}" for name in ("compute", "memory", "links")),
        f"{1e3 * roof['seconds']:.1f}",
        f"{step['images'] / roof['seconds']:,.0f}",
    ]


def _empty(model: str, topology: str) -> list[str]:
    sides = topology.partition(":")[2].split("x")
    chips = int(sides[0]) * int(sides[1])
    return [f"`{model}`", "", str(chips), *[""] * (len(_HEADER) - 3)]


def _versions(record: Record) -> str:
    found = record["versions"]
    return f"{record['date']}, JAX {found['jax']}, libtpu {found['libtpu']}"


_FINDINGS = """### What the compiled programs show

- Memory binds ResNet-50, not operations: 256 images take 31 ms of operations and 125
  ms of traffic.
- 256 images a chip fit with room: 9.5 GB of 17.2 GB.
- A small ResNet-18 over four chips (`resnet18` in the raw results) has 52 all-reduces
  and no other collective. BatchNorm has two per layer forward, the sum of the first
  rows and the sums about their mean, and one backward; those of parallel layers are
  merged. The gradients of all convolutions are merged into one. It is in bfloat16, the
  convolutions' dtype, since the compiler sums over chips before it widens; that of the
  head, and all of BatchNorm's sums, are in float32.
- Evaluation has no collective.
- Only the plain formulations are compiled, not those for a CPU; a test counts the
  operations.

Changed because of it: whether a batch is evaluated in parts, as on a single CPU device,
depended on the machine that compiles; now on the devices that are compiled for.
Not changed: the first of BatchNorm's all-reduces, and the dtype of the kernels' one.
"""

if __name__ == "__main__":
    main()
