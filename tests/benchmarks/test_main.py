import re
import subprocess
import sys

import pytest


def run(*arguments, folder):
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
    )


def test_quick_mode_prints_a_table_from_any_folder(tmp_path):
    done = run("operators", "--quick", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "device: 1 x cpu" in done.stdout
    assert "1x1 56px 64-256" in done.stdout


@pytest.mark.slow
def test_labelling_takes_no_more_memory_for_a_hundred_times_the_images(tmp_path):
    done = run("labelling_memory", "--quick", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    found = re.findall(r"│ ([\d,]+) +│ +\d+ │ +(\d+) │", done.stdout)
    (few, less), (many, more) = found
    assert (few, many) == ("100", "10,000")
    # Names take 0.2 MB, labels 0.4; the rest is what the allocator keeps.
    assert int(more) < int(less) + 40


def test_a_wrong_name_gets_the_nearest_right_one(tmp_path):
    done = run("opertors", folder=tmp_path)
    assert done.returncode == 2
    assert "no benchmark 'opertors'. Nearest: operators." in done.stderr
    assert "Traceback" not in done.stderr
