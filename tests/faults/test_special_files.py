"""FIFOs, sockets and devices where files are expected: opening one may never return."""

import os
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cnn_flax.weights import (
    CheckpointError,
    WeightsError,
    load_pretrained,
    read_checkpoint,
)
from cnn_flax.weights.preprocessing import ImageError, read_image
from train.data import DecodeError, SourceError, open_source
from train.data.decode import header_shape, load_image
from train.data.pseudo_label_file import read_header
from train.data.shard_readers import open_shard
from train.errors import UserError
from train.storage import read_json


@pytest.fixture
def fifo(tmp_path):
    path = tmp_path / "fifo.png"
    os.mkfifo(path)
    return path


def make_socket(path, monkeypatch):
    monkeypatch.chdir(path.parent)  # The path of a socket must be short.
    server = socket.socket(socket.AF_UNIX)
    server.bind(path.name)
    server.close()


def test_weights_are_regular_files(fifo):
    for path in (fifo, Path("/dev/zero")):
        with pytest.raises(CheckpointError, match="is no regular file"):
            read_checkpoint(path)
        with pytest.raises(WeightsError, match="is no regular file"):
            load_pretrained("resnet18", path)


def test_images_are_regular_files(fifo):
    for path in (fifo, Path("/dev/zero")):
        for read in (load_image, header_shape):
            with pytest.raises(DecodeError, match="it is no regular file"):
                read(path)
        with pytest.raises(ImageError, match="it is no regular file"):
            read_image(path)


@pytest.mark.parametrize("form", ["folder", "files"])
def test_special_files_in_a_folder_of_images_do_not_count(tmp_path, monkeypatch, form):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for i in range(2):
            Image.fromarray(np.full((4, 4), i, np.uint8)).save(
                tmp_path / name / f"{i}.png"
            )
        os.mkfifo(tmp_path / name / "0.fifo.png")
    make_socket(tmp_path / "a" / "s.png", monkeypatch)
    kwargs: Any = {"val_share": 0.5} if form == "folder" else {"labelled": False}
    source = open_source(f"{form}:{tmp_path}", **kwargs)
    names = {Path(source.name(i)).name for i in range(len(source))}
    assert names <= {"0.png", "1.png"}


def test_a_link_to_a_special_file_is_an_unreadable_image(tmp_path, fifo):
    (tmp_path / "link.png").symlink_to(fifo)
    with pytest.raises(DecodeError, match="it is no regular file"):
        load_image(tmp_path / "link.png")


def test_sets_in_one_file_and_headers_are_regular_files(tmp_path, fifo):
    for name in ("x.tar", "x.parquet", "x.txt"):
        os.mkfifo(tmp_path / name)
        with pytest.raises(SourceError, match="it is no regular file"):
            open_shard(tmp_path / name)
    with pytest.raises(SourceError, match="no such file"):
        open_source(f"npz:{fifo}")
    for name in ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"):
        os.mkfifo(tmp_path / name)
    with pytest.raises(SourceError, match="is no regular file"):
        open_source(f"idx:{tmp_path}")
    with pytest.raises(UserError, match="is no regular file"):
        read_json(fifo)
    fifo.rename(tmp_path / "labels.npy.json")
    with pytest.raises(UserError, match="is not a file of pseudo-labels"):
        read_header(tmp_path / "labels.npy")
