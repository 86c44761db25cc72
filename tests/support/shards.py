"""Writers of shards: the same images as a tar, an array_record, a parquet, a list."""

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

__all__ = ["WRITERS", "png", "write_array_record", "write_list", "write_parquet"]


def png(pixels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels.squeeze()).save(stream, "png")
    return stream.getvalue()


def write_tar(path: Path, files: list[bytes]) -> Path:
    """With a text next to each image, as WebDataset has them."""
    path = path.with_suffix(".tar")
    with tarfile.open(path, "w") as tar:
        for i, data in enumerate(files):
            for name, part in ((f"a/{i:04}.png", data), (f"a/{i:04}.txt", b"text")):
                info = tarfile.TarInfo(name)
                info.size = len(part)
                tar.addfile(info, io.BytesIO(part))
    return path


def write_array_record(path: Path, files: list[bytes], group_size: int = 1) -> Path:
    module = pytest.importorskip("array_record.python.array_record_module")
    path = path.with_suffix(".array_record")
    writer = module.ArrayRecordWriter(str(path), f"group_size:{group_size}")
    for data in files:
        writer.write(data)
    writer.close()
    return path


def write_parquet(path: Path, files: list[bytes]) -> Path:
    """As Hugging Face's `datasets` does, in row groups of 3."""
    import pyarrow
    from pyarrow import parquet

    path = path.with_suffix(".parquet")
    rows = [{"bytes": data, "path": None} for data in files]
    table = pyarrow.table({"image": rows, "note": [b"not an image"] * len(rows)})
    parquet.write_table(table, path, row_group_size=3)
    return path


def write_list(path: Path, files: list[bytes]) -> Path:
    path = path.with_suffix(".txt")
    folder = path.parent / f"{path.stem}_files"
    folder.mkdir(parents=True)
    for i, data in enumerate(files):
        (folder / f"{i:04}.png").write_bytes(data)
    lines = (f"{folder.name}/{i:04}.png\n" for i in range(len(files)))
    path.write_text("".join(lines))
    return path


WRITERS = {
    "tar": write_tar,
    "array_record": write_array_record,
    "parquet": write_parquet,
    "list": write_list,
}
