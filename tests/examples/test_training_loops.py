"""Our models learn in other programs' loops."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.parametrize("library", ["linen", "nnx", "equinox", "keras", "grain"])
def test_a_small_net_learns_the_digits(library):
    done = subprocess.run(
        [sys.executable, f"examples/train_with_{library}.py"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    (accuracy,) = re.findall(r"accuracy (.*) %", done.stdout)
    assert float(accuracy) > 90
