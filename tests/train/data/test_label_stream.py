import numpy as np
import pytest

from tests.support.shards import png, write_tar
from train.data.label_shards import (
    LabelShard,
    label_path,
    open_folder,
    write_label_shard,
)
from train.data.label_stream import shard_labelled
from train.data.shards import image_keys, list_shards, shard_digest

FILES = [png(np.full((4, 4), i, np.uint8)) for i in range(4)]


@pytest.fixture
def digest(tmp_path):
    """The identity of a shard with labels of `top` classes, some of them missing."""

    def label(out, top=2, unreadable=(), files=FILES):
        path = write_tar(tmp_path / "0", files)
        header = {"teacher": "t", "top": top}
        names = {"class_names": list("abc"), "step": 1, "run": "r", "ema": False}
        open_folder(tmp_path / out, {**header, **names})
        log_probs = np.full((top, 4), -1.5)
        log_probs[:, list(unreadable)] = np.nan
        header |= {
            "digest": shard_digest(path),
            "images": 4,
            "classes": 3,
            "unreadable": {i: ["name", "reason"] for i in unreadable},
        }
        keys = image_keys([f"a/{i:04}" for i in range(4)])
        labels = LabelShard(keys, np.zeros((top, 4)), log_probs, header)
        write_label_shard(label_path(tmp_path / out, path.name), labels)
        shards = list_shards(f"shards:{tmp_path}/*.tar")
        return shard_labelled(tmp_path / out, shards).digest

    return label


def test_a_stream_is_identified_by_its_shards_top_and_unreadable_images(digest):
    first = digest("a")
    assert digest("b") == first
    others = [
        digest("c", top=1),
        digest("d", unreadable=[1]),
        digest("e", unreadable=[2]),
        digest("f", files=FILES[::-1]),
    ]
    assert len({first, *others}) == 5
