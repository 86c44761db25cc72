"""Random changes of images: ours against torchvision's v2, Pillow and dm-pix.

All begin with `uint8` images of 256 px and end with float32 in [0, 1]. Each image has
its own draw: torchvision's transforms, which draw once a call, take an image a call.
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

TITLE = "random changes of images, each with its own draw"
COLUMNS: Columns = {"images/s": ("images_per_second", ",.0f")}

# What dm-pix has none of is left out there.
TASKS = ("resized crop + flip", "rotate", "rand_augment", "colour jitter")
_DM_PIX = ("rotate", "colour jitter")


def measure(options: Options) -> list[Row]:
    """Measures each change, by default of batches of 32."""
    batch_size = options.batch_size or (2 if options.quick else 32)
    size = options.image_size or (32 if options.quick else 256)
    window = round(size * 224 / 256)
    rows = []
    for task in TASKS[:2] if options.quick else TASKS:
        case = f"{task}, {size} px, batch {batch_size}"
        asked = {"task": task, "batch_size": batch_size, "size": size, "window": window}
        chosen = options.chosen(_candidates(task))
        rows += measure_case(
            case,
            {who: (own, {**asked, **how}) for who, (own, how) in chosen.items()},
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
