"""`python -m train pseudo-label`: writes a run's labels for images to a file."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rich.console import Console
from tyro.conf import Positional

from train.api.labelling import pseudo_label
from train.compilation_cache import use_compilation_cache

__all__ = ["PseudoLabel"]


@dataclass(frozen=True)
class PseudoLabel:
    """Labels images with a run's last checkpoint, for --pseudo-labels.

    The same command resumes after it was stopped. The file is a NumPy array of
    probabilities, float32 [n, K], one row per image, NaN for an image that cannot be
    read; FILE.json is its header. With --data shards:... it is a folder, with one file
    of the most probable classes per shard; workers share it, each with its --shards
    I/N. The flags of training decide whether the labels are soft or hard, and which of
    them are used.
    """

    run: Positional[Path]
    """Folder of the run: the teacher."""
    data: str
    """Data source as for a run, or files:PATH (all files below a folder), or the word
    rest: the training images that the run left out. Or shards:PATTERN, such as
    shards:/data/*.tar, or shards:@FILE, a file with one shard per line: tar,
    array_record, parquet, or txt (one image file per line)."""
    out: Path
    """The file to write; with shards, the folder."""
    shards: str = ""
    """With shards: label the part I/N of them, I from 0 to N - 1; all by default."""
    top: int | None = None
    """With shards: number of most probable classes to keep of each image; 8 by
    default."""
    split: Literal["train", "val", "test"] | None = None
    """Split of the data, train by default; shards have none."""
    batch_size: int | None = None
    """Images per step; by default the run's."""
    ema: bool = False
    """Use the moving average of the weights of a run with --ema-decay."""
    threads: int = 0
    """Threads that read images; 0 for as many as the run uses."""
    max_pixels: int = 0
    """Allow images of up to this many pixels, if that is more than Pillow's limit."""
    max_unpacked_bytes: int = 0
    """Allow the arrays of a compressed npz or idx file to have up to this many bytes,
    if that is more than 64 MiB and 32 times its size."""

    def __call__(self) -> None:
        """Runs the command."""
        use_compilation_cache()
        result = pseudo_label(
            self.run,
            self.data,
            self.out,
            shards=self.shards,
            top=self.top,
            split=self.split,
            batch_size=self.batch_size,
            ema=self.ema,
            threads=self.threads,
            max_pixels=self.max_pixels,
            max_unpacked_bytes=self.max_unpacked_bytes,
        )
        if result.labels is not None:  # Shards have reported themselves one by one.
            Console().print(result.table())
