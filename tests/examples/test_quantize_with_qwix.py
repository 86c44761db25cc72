"""A run's net in int8 by qwix classifies as the net itself does."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.runs import untrained_run
from train.config import Config, Input, Network

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_int8_is_a_quarter_of_the_size_and_as_good(tmp_path):
    pytest.importorskip("qwix")
    fields = {"stage_sizes": (1,), "width": 16, "small_inputs": True}
    images = Input("digits", image_size=8, batch_size=64, mean=(0.3,), std=(0.4,))
    run = untrained_run(tmp_path, Config(images, network=Network("resnet18", fields)))
    done = subprocess.run(
        [sys.executable, "examples/quantize_with_qwix.py", str(run)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found = re.findall(r"(\d+) of 359 images correct, ([\d,]+) bytes", done.stdout)
    (before, whole), (after, small) = [
        (int(n), int(size.replace(",", ""))) for n, size in found
    ]
    assert small < 0.4 * whole
    assert abs(after - before) <= 5
