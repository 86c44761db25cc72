"""Random augmentations: ours against torchvision's v2, Pillow and dm-pix.

All map `uint8` images of 256 px to float32 in [0, 1]. Each image is augmented with
random numbers of its own: torchvision's transforms, which sample once per call, are
called once per image.
"""

import importlib.util
from typing import Any

from benchmarks.cases import measure_case
from benchmarks.measurements import Row
from benchmarks.options import Options
from benchmarks.tables import OURS, Columns
from benchmarks.timing import PEER_PAUSE
from benchmarks.worker_process import has_torch

__all__ = ["COLUMNS", "TASKS", "TITLE", "measure"]

TITLE = "random augmentations, sampled per image"
COLUMNS: Columns = {"images/s": ("images_per_second", ",.0f")}

# dm-pix lacks the others.
TASKS = ("resized crop + flip", "rotate", "rand_augment", "colour jitter")
_DM_PIX = ("rotate", "colour jitter")


def measure(options: Options) -> list[Row]:
    """Measures each augmentation, by default at batch 32."""
    batch_size = options.batch_size or (2 if options.quick else 32)
    size = options.image_size or (32 if options.quick else 256)
    window = round(size * 224 / 256)
    rows = []
    for task in TASKS[:2] if options.quick else TASKS:
        case = f"{task}, {size} px, batch {batch_size}"
        arguments = {
            "task": task,
            "batch_size": batch_size,
            "size": size,
            "window": window,
        }
        chosen = options.select(_candidates(task))
        rows += measure_case(
            case,
            {
                name: (builder, {**arguments, **more})
                for name, (builder, more) in chosen.items()
            },
            options.turns(block_seconds=0.5, pause=PEER_PAUSE),
            images=batch_size,
        )
    return rows


def _candidates(task: str) -> dict[str, tuple[str, dict[str, Any]]]:
    candidates: dict[str, tuple[str, dict[str, Any]]] = {
        OURS: ("benchmarks.augmentation_programs:ours", {})
    }
    if has_torch():
        peer = "benchmarks.torch_programs:augmentation"
        candidates["torchvision uint8"] = (peer, {"on": "uint8"})
        candidates["torchvision float32"] = (peer, {"on": "float32"})
        candidates["torchvision Pillow"] = (peer, {"on": "pillow"})
    if task in _DM_PIX and importlib.util.find_spec("dm_pix") is not None:
        candidates["dm-pix"] = ("benchmarks.augmentation_programs:dm_pix", {})
    return candidates
