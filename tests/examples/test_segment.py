"""The decoders of the examples learn to segment digits that they have not seen."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.parametrize("decoder", ["fpn", "unet"])
def test_a_decoder_learns_to_segment(decoder):
    options = ["--steps", "250"]
    done = subprocess.run(
        [sys.executable, f"examples/segment_with_{decoder}.py", *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    (iou,) = re.findall(r"not seen: (.*) %", done.stdout)
    assert float(iou) > 20  # Background everywhere is 8 %.
