"""Memory of pseudo-labelling by the number of images."""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import train
from benchmarks.measurements import Row
from benchmarks.options import Options
from benchmarks.tables import OURS, Columns
from benchmarks.worker_process import peak_memory, resident_memory
from train.huge_pages import use_huge_pages

__all__ = ["COLUMNS", "TITLE", "measure", "train_teacher"]

TITLE = "memory of `pseudo-label`, by the number of images"
COLUMNS: Columns = {
    "RSS listed, MB": ("listed_memory", ",.0f", 1e-6),
    "peak RSS, MB": ("peak_memory", ",.0f", 1e-6),
    "file, MB": ("file_size", ",.1f", 1e-6),
    "images/s": ("images_per_second", ",.0f"),
}

# Files per folder: all are links to the first, as the links to a file are limited.
_PER_FOLDER = 1000


def measure(options: Options) -> list[Row]:
    """Labels files of 8 x 8 pixels with a tiny net, in one process per count."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        teacher = Path(folder, "run")
        train_teacher(teacher)
        for count in (100, 10_000) if options.quick else (10_000, 1_000_000):
            images, out = Path(folder, str(count)), Path(folder, f"{count}.npy")
            _link(images, count)
            command = [sys.executable, "-m", __name__, teacher, images, out]
            done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
            figures = json.loads(done.stdout.splitlines()[-1])
            rows.append(
                {
                    "case": f"{count:,} images",
                    "candidate": OURS,
                    "listed_memory": figures["listed"],
                    "peak_memory": figures["peak"],
                    "file_size": out.stat().st_size,
                    "images_per_second": count / figures["seconds"],
                }
            )
    return rows


def train_teacher(folder: Path) -> None:
    """Trains a net of one block on the digits for one step."""
    config = train.replace(
        train.recipes.load("digits_resnet").config,
        model_fields={"stage_sizes": (1,), "width": 4, "small_inputs": True},
        epochs=1,
        epoch_steps=1,
    )
    train.fit(config, folder, quiet=True)


def _link(root: Path, count: int) -> None:
    from PIL import Image

    rng = np.random.default_rng(0)
    for i in range(count):
        folder = root / f"{i // _PER_FOLDER:04}"
        if i % _PER_FOLDER == 0:
            folder.mkdir(parents=True)
            first = folder / "000.png"
            Image.fromarray(rng.integers(0, 256, (8, 8), np.uint8)).save(first)
        else:
            os.link(first, folder / f"{i % _PER_FOLDER:03}.png")


def _label(teacher: Path, images: Path, out: Path) -> None:
    """Labels a folder and prints memory and time."""
    from train.run.labelling import label_images, open_images_to_label

    source, _ = open_images_to_label(teacher, f"files:{images}")
    listed, start = resident_memory(), time.perf_counter()
    label_images(teacher, source, out, batch_size=500, say=lambda text: None)
    seconds = time.perf_counter() - start
    peak = peak_memory()
    print(json.dumps({"listed": listed, "peak": peak, "seconds": seconds}))


if __name__ == "__main__":
    use_huge_pages()  # As `python -m train pseudo-label` does.
    _label(*map(Path, sys.argv[1:]))
