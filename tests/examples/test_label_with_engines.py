"""Labelling on Ray Data and Apache Beam, which are installed for it alone."""

import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

from tests.support.runs import untrained_run
from tests.support.shards import png, write_tar
from train.__main__ import main
from train.config import Config, Input, Network
from train.data import open_source

pytestmark = [pytest.mark.slow, pytest.mark.long]
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    """The Python of an environment that adds both engines to this one."""
    folder = tmp_path_factory.mktemp("engines")
    venv.create(folder, symlinks=os.name != "nt")
    path = sysconfig.get_path("purelib", "venv", {"base": str(folder)})
    Path(path, "of_the_tests.pth").write_text(sysconfig.get_path("purelib") + "\n")
    python = sysconfig.get_path("scripts", "venv", {"base": str(folder)}) + "/python"
    words = "-m pip install --quiet --no-compile --only-binary :all:"
    command = [python, *words.split(), "ray[data]", "apache-beam"]
    installed = subprocess.run(command, capture_output=True, text=True, check=False)
    if installed.returncode:
        *_, reason = installed.stderr.splitlines() or [""]
        version = sys.version.split()[0]
        pytest.skip(f"Ray and Beam cannot be installed on Python {version}: {reason}")
    return python


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    fields = {"stage_sizes": (1,), "width": 4, "small_inputs": True}
    images = Input("digits", image_size=8, batch_size=16, mean=(0.3,), std=(0.4,))
    config = Config(images, network=Network("resnet18", fields))
    return untrained_run(tmp_path_factory.mktemp("run") / "run", config)


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """A pattern of four tars of six digits each."""
    folder, source = tmp_path_factory.mktemp("shards"), open_source("digits")
    for i in range(4):
        write_tar(folder / f"{i}", [png(source.read(6 * i + j)) for j in range(6)])
    return f"shards:{folder}/*.tar"


@pytest.fixture(scope="module")
def expected(teacher, shards, tmp_path_factory):
    """The files that two workers of `pseudo-label` write, by name."""
    out = tmp_path_factory.mktemp("labels")
    for part in ("0/2", "1/2"):
        words = ["--data", shards, "--out", str(out), "--shards", part]
        assert main(["pseudo-label", str(teacher), *words]) == 0
    return files(out)


def files(folder):
    return {path.name: path.read_bytes() for path in folder.glob("*.npz")}


@pytest.mark.parametrize(
    ("example", "flags"),
    [
        ("label_with_ray.py", []),
        # Beam's DirectRunner would first download another runner.
        (
            "label_with_beam.py",
            ["--runner", "apache_beam.runners.portability.fn_api_runner.FnApiRunner"],
        ),
    ],
)
def test_an_engine_writes_the_files_of_the_command(
    python, teacher, shards, expected, tmp_path, example, flags
):
    out = tmp_path / "labels"
    # Ray writes a token into the home folder, and starts slowly on a loaded machine.
    environment = {
        "PYTHONPATH": str(ROOT),
        "HOME": str(tmp_path),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_raylet_start_wait_time_s": "300",
    }
    done = subprocess.run(
        [python, ROOT / "examples" / example, teacher, shards, out, *flags],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert len(expected) == 4
    assert files(out) == expected
