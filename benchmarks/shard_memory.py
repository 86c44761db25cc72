"""Memory of labels by the shard, by the number of images.

The shards are links to one tar, and all labels but those of the first shard links to
its labels: a worker then checks as many shards as there are, and labels the last one;
training chooses among as many images as there are, and reads some batches.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path

import numpy as np

from benchmarks.image_tar import write_image_tar
from benchmarks.labelling_memory import train_teacher
from benchmarks.measurements import Row
from benchmarks.options import Options
from benchmarks.tables import OURS, Columns
from benchmarks.worker_process import peak_memory, resident_memory
from train.huge_pages import use_huge_pages

__all__ = ["COLUMNS", "TITLE", "measure"]

TITLE = "memory of labels by the shard, by the number of images"
COLUMNS: Columns = {
    "RSS at the start, MB": ("start_memory", ",.0f", 1e-6),
    "peak RSS, MB": ("peak_memory", ",.0f", 1e-6),
    "labels, MB": ("file_size", ",.1f", 1e-6),
    "s": ("seconds", ",.1f"),
}

_BATCHES = 20  # Of training.


def measure(options: Options) -> list[Row]:
    """Labels shards of 10,000 images of 8 x 8 pixels, and trains on the labels."""
    per_shard, counts = (100, (1, 100)) if options.quick else (10_000, (1, 10_000))
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        teacher = Path(folder, "run")
        train_teacher(teacher)
        tar = Path(folder, "images.tar")
        rng = np.random.default_rng(0)
        write_image_tar(
            tar, (rng.integers(0, 256, (8, 8), np.uint8) for _ in range(per_shard))
        )
        for count in counts:
            root = Path(folder, f"{count}")
            root.mkdir()
            for i in range(count):
                os.link(tar, root / f"{i:05}.tar")
            if count > 1:
                _worker("label", teacher, root, "1")
                first = root / "labels" / "00000.tar.npz"
                for i in range(1, count - 1):
                    os.link(first, root / "labels" / f"{i:05}.tar.npz")
            for task in ("label", "train"):
                rows.append(
                    {
                        "case": f"{task}, {count * per_shard:,} images",
                        "candidate": OURS,
                        **_worker(task, teacher, root, ""),
                        "file_size": _size(root / "labels"),
                    }
                )
    return rows


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.iterdir())


def _worker(task: str, teacher: Path, root: Path, first: str) -> Row:
    command = [sys.executable, "-m", __name__, task, teacher, root, first]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def _run(task: str, teacher: Path, root: Path, first: str) -> None:
    """Labels the shards, or trains on them, and prints memory and time."""
    from train.data import train_batches
    from train.data.label_stream import shard_labelled
    from train.data.shards import list_shards
    from train.run.shard_labelling import ShardLabeller, label_shards

    before, start = resident_memory(), time.perf_counter()
    shards, labels = list_shards(f"shards:{root}/*.tar"), root / "labels"
    if task == "label":
        if first:
            shards = shards.part(0, len(shards))
        labeller = ShardLabeller(
            teacher, labels, batch_size=500, say=lambda message: None
        )
        label_shards(labeller, shards, say=lambda message: None)
    else:
        # Half of what there is of a class, so that there are thresholds and ties.
        source = shard_labelled(labels, shards, per_class=50 * len(shards))
        batches = train_batches(source, batch_size=50, image_size=8, channels=1, seed=0)
        for _ in islice(batches, _BATCHES):
            pass
        batches.close()
    seconds = time.perf_counter() - start
    figures = {"start_memory": before, "peak_memory": peak_memory()}
    print(json.dumps({**figures, "seconds": seconds}))


if __name__ == "__main__":
    use_huge_pages()  # As `python -m train` does.
    _run(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4])
