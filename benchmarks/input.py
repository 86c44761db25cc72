"""Batches from JPEG files: ours against torch's DataLoader, both decoding by Pillow.

Both read the same folder with one thread or process per core, into batches of `uint8`
on the device. The batches that are ready when a turn begins are not timed.
"""

import os
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks.cases import measure_case
from benchmarks.measurements import Row
from benchmarks.options import Options
from benchmarks.tables import OURS, Columns
from benchmarks.worker_process import Program, has_torch

__all__ = ["COLUMNS", "TASKS", "TITLE", "measure", "program"]

TITLE = "batches from a folder of JPEG files of 500 x 375 px"
COLUMNS: Columns = {"images/s": ("images_per_second", ",.0f")}

TASKS = ("resized crop", "centre")
# Batches that may be ready when a turn begins: the DataLoader has two per core.
_AHEAD = 4 + 2 * (os.cpu_count() or 1)
_PAUSE = 2.0  # seconds, in which both fill their queues.
_PHOTOS, _FILES = 32, 2048  # The files beyond the different photos are links.


def measure(options: Options) -> list[Row]:
    """Measures random crops and the centre crop, by default at batch 32."""
    batch_size = options.batch_size or (4 if options.quick else 32)
    size = options.image_size or (32 if options.quick else 224)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        make_photos(Path(folder), 8 if options.quick else _FILES, options.quick)
        for task in TASKS[:1] if options.quick else TASKS:
            builders = {OURS: "benchmarks.input:program"}
            if has_torch():
                builders["torch DataLoader"] = "benchmarks.torch_programs:data_loader"
            arguments = {
                "folder": folder,
                "task": task,
                "batch_size": batch_size,
                "size": size,
                "ahead": _AHEAD,
            }
            rows += measure_case(
                f"{task}, {size} px, batch {batch_size}",
                {
                    name: (builder, arguments)
                    for name, builder in options.select(builders).items()
                },
                options.turns(blocks=9, block_seconds=4.0, pause=_PAUSE),
                images=batch_size,
            )
    return rows


def program(
    folder: str, task: str, batch_size: int, size: int, ahead: int
) -> tuple[Program, dict[str, Any]]:
    """Our input pipeline, for a worker process."""
    from train.data import open_source, prefetch_to_device, train_batches

    view: dict[str, Any] = {
        "resized crop": {"window_scale": (0.08, 1.0)},
        "centre": {"crop_pct": 224 / 256},
    }[task]
    batches = prefetch_to_device(
        train_batches(
            open_source(f"folder:{folder}", cache=False),
            batch_size=batch_size,
            image_size=size,
            channels=3,
            seed=0,
            **view,
        )
    )

    def run(calls: int) -> float:
        for _ in range(ahead):
            next(batches)
        start = time.perf_counter()
        for _ in range(calls):
            batch = next(batches)
        jax.block_until_ready(batch)
        return time.perf_counter() - start

    return run, {}


def make_photos(root: Path, count: int, quick: bool = False) -> None:
    """Writes JPEG files of two classes, in the folders `train` and `test`.

    Args:
      root: parent of these folders.
      count: number of training files; the test has two.
      quick: whether the images are small.
    """
    from PIL import Image

    rng = np.random.default_rng(0)
    width, height = (60, 45) if quick else (500, 375)
    for i in range(count):
        path = root / "train" / f"class{i % 2}" / f"{i:05}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        if i >= _PHOTOS:
            os.link(root / "train" / f"class{i % 2}" / f"{i % _PHOTOS:05}.jpg", path)
            continue
        # Smooth surfaces with some grain: files of about ImageNet's size.
        coarse = rng.integers(0, 256, (9, 12, 3), np.uint8)
        surface = Image.fromarray(coarse).resize(
            (width, height), Image.Resampling.BICUBIC
        )
        grain = rng.normal(0, 12, (height, width, 1))
        pixels = np.clip(np.asarray(surface) + grain, 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(path, quality=90)
        if i < 2:
            test = root / "test" / f"class{i}" / "0.jpg"
            test.parent.mkdir(parents=True)
            os.link(path, test)
