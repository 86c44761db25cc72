"""Disks that are full or read-only, in each writer: what was there stays, and goes on.

A disk is a small tmpfs, which root alone can mount.
"""

import dataclasses
import os
import subprocess

import numpy as np
import pytest

from cnn_flax.cli import main as library
from cnn_flax.export import ExportError, files
from cnn_flax.weights.native import write
from tests.faults.test_tampered_files import HEADER
from tests.support.runs import assert_same_end, untrained_run
from train.__main__ import main
from train.api.training import silent_orbax
from train.data.label_shards import LabelShard, write_label_shard
from train.data.pseudo_label_file import PseudoLabelsWriter
from train.errors import StorageError
from train.run.load import load_run
from train.run.loop import fit
from train.run.output_cache import cached_rows
from train.run.progress import RunProgress
from train.run.run_folder import lock, write_record
from train.storage import create_file, replace_file, write_json


class Disk:
    """A disk of 4 MB.

    Attributes:
      path: the folder that it is mounted on.
    """

    def __init__(self, path):
        self.path = path
        path.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "none", str(path)]
        if os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
            pytest.skip("Root alone can mount a disk.")

    def fill(self):
        """Leaves no space."""
        with (self.path / "filler").open("wb", buffering=0) as file:
            try:
                while file.write(bytes(4096)):
                    pass
            except OSError:
                assert os.statvfs(self.path).f_bavail == 0

    def make_room(self):
        """Takes back what `fill` did."""
        (self.path / "filler").unlink()

    def remount(self, option):
        """Makes it read-only, `ro`, or writable, `rw`."""
        options = ["-o", f"remount,{option}", str(self.path)]
        subprocess.run(["mount", *options], check=True)

    def files(self):
        """The files on it."""
        return {path.name for path in self.path.rglob("*")} - {"filler"}


@pytest.fixture
def disk(tmp_path):
    mounted = Disk(tmp_path / "disk")
    yield mounted
    subprocess.run(["umount", "-l", str(mounted.path)], check=True)


# Writers of small files: each writes other data at the second call.

ROOM = np.zeros((4, 2), np.float32)
SHARD = {
    **{"digest": "d", "teacher": "t", "images": 2, "top": 1, "classes": 2},
    "unreadable": {},
}


def label_shard(path, number):
    classes = np.full((1, 2), number, "u2")
    labels = LabelShard(np.zeros(2, "u8"), classes, classes.astype("f2"), SHARD)
    write_label_shard(path, labels)


def cache(path, number):
    path.unlink(missing_ok=True)
    rows = iter([(np.arange(4), np.full((4, 2), number, np.float32))])
    cached_rows(path, ROOM, rows)


def locked(path, number):
    with lock(path):
        pass


WRITERS = {
    "json": lambda path, number: write_json(path, number),
    "page": lambda path, number: replace_file(path, f"{number}"),
    "header": lambda path, number: create_file(path / str(number), "text"),
    "record": lambda path, number: write_record(path, {"a": number}),
    "lock": locked,
    "label shard": label_shard,
    "cache": cache,
    "exported file": lambda path, number: files._write({path: bytes([number])}),
    "weights": lambda path, number: write(path, {"a": np.full(2, number)}, {}),
}
# Those that make a folder, or a file of its own.
NEW = ("header", "record", "lock", "cache")


@pytest.mark.parametrize("fault", ["full", "read-only"])
@pytest.mark.parametrize("name", WRITERS)
def test_a_writer_leaves_what_was_there_and_writes_when_it_can(disk, name, fault):
    writer, path = WRITERS[name], disk.path / "written"
    if name == "header":
        path.mkdir()
    if name not in NEW:
        writer(path, 1)
    before = path.read_bytes() if path.is_file() else None
    if fault == "full":
        disk.fill()
    else:
        disk.remount("ro")
    message = "No space left on device" if fault == "full" else "Read-only file system"
    with pytest.raises((OSError, StorageError, ExportError), match=message):
        writer(path, 2)
    assert before == (path.read_bytes() if path.is_file() else None)
    assert disk.files() <= {"written", ".lock"}
    if fault == "full":
        disk.make_room()
    else:
        disk.remount("rw")
    writer(path, 2)
    assert disk.files() > set()


@pytest.mark.parametrize("full_before", [0, 1, 2])
def test_labels_go_on_where_the_disk_was_full(tmp_path, disk, full_before):
    rows = np.full((2, 2), 0.5, np.float32)

    def label(path, full=None):
        if full == 0:
            disk.fill()
        with PseudoLabelsWriter(path, HEADER) as writer:
            for batch in range(writer.labelled // 2, 2):
                if full == batch + 1:
                    disk.fill()
                writer.append(rows / (1 + batch), {})

    label(tmp_path / "whole.npy")
    with pytest.raises(StorageError, match="No space left on device"):
        label(disk.path / "labels.npy", full_before)
    disk.make_room()
    label(disk.path / "labels.npy")
    assert disk.files() == {"labels.npy", "labels.npy.json"}
    for name in ("whole.npy", "whole.npy.json"):
        other = disk.path / name.replace("whole", "labels")
        assert other.read_bytes() == (tmp_path / name).read_bytes()


@pytest.mark.slow
def test_a_run_goes_on_where_the_disk_was_full(
    tmp_path, disk, tiny, quiet, monkeypatch, programs
):
    config = dataclasses.replace(tiny, epochs=1, log_every=2, checkpoint_every=2)
    whole, run, steps = tmp_path / "whole", disk.path / "run", []
    fit(config, whole, console=quiet)
    original = RunProgress.step

    def step(self):
        original(self)
        steps.append(run)
        if len(steps) == 7:
            disk.fill()

    with monkeypatch.context() as patch:
        patch.setattr(RunProgress, "step", step)
        with pytest.raises(StorageError, match="keeps the checkpoint of step [46]"):
            with silent_orbax():  # As the programs do.
                fit(config, run, console=quiet)
    disk.make_room()
    fit(config, run, console=quiet)
    assert_same_end(run, whole, config)


@pytest.mark.slow
def test_programs_say_in_one_line_that_a_disk_is_full(disk, tiny, tmp_path, capsys):
    run = untrained_run(tmp_path / "run", tiny)
    disk.fill()
    file = str(disk.path / "x.safetensors")
    assert library(["convert", str(run), file]) == 2
    assert main(["compare", str(run), "--out", str(disk.path / "x.html")]) == 2
    complaint = capsys.readouterr().err
    assert complaint.count("cannot be written: ") == 2, complaint
    assert "Traceback" not in complaint
    assert disk.files() == set()


def test_a_run_in_a_read_only_folder_is_read(disk, tiny):
    run = untrained_run(disk.path / "run", tiny)
    disk.remount("ro")
    assert load_run(run).step == 0


def test_a_program_says_that_a_disk_is_read_only(disk, capsys, monkeypatch):
    monkeypatch.setattr("train.run.run_folder.check_space", lambda *arguments: None)
    disk.remount("ro")
    assert main(["digits_resnet", "--out", str(disk.path / "run")]) == 1
    complaint = capsys.readouterr().err
    assert "cannot be written to: Read-only file system. Make it writable" in complaint
