import os
import subprocess
import sys

import pytest

from train.huge_pages import use_huge_pages

PROGRAM = """
import os, sys
if __name__ == "__main__":
    from train.huge_pages import use_huge_pages
    use_huge_pages()
print(os.getpid(), os.environ.get("GLIBC_TUNABLES"), sys.flags.optimize, sys.argv[1:])
"""

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="Linux alone does so")


def started(folder, **environment):
    (folder / "program.py").write_text(PROGRAM)
    kept = {k: v for k, v in os.environ.items() if k != "GLIBC_TUNABLES"}
    process = subprocess.Popen(
        [sys.executable, "-O", "-m", "program", "--a", "b c"],
        cwd=folder,
        env={**kept, **environment},
        stdout=subprocess.PIPE,
        text=True,
    )
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    return said.strip().removeprefix(f"{process.pid} ")


@on_linux
def test_the_program_begins_anew_as_it_was_called_in_the_same_process(tmp_path):
    assert started(tmp_path) == "glibc.malloc.hugetlb=1 1 ['--a', 'b c']"


@on_linux
@pytest.mark.parametrize("own", ["", "glibc.malloc.check=1"])
def test_what_the_user_set_stays(tmp_path, own):
    assert started(tmp_path, GLIBC_TUNABLES=own) == f"{own} 1 ['--a', 'b c']"


def test_a_process_that_cannot_be_started_anew_goes_on(monkeypatch):
    asked = []

    def execve(path, arguments, environment):
        asked.append((path, environment["GLIBC_TUNABLES"]))
        raise OSError("Out of memory")

    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(os, "execve", execve)
    use_huge_pages()
    assert asked == [(sys.executable, "glibc.malloc.hugetlb=1")]
    assert "GLIBC_TUNABLES" not in os.environ


def test_other_systems_are_left_alone(monkeypatch):
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    monkeypatch.setattr(sys, "platform", "darwin")
    asked = []
    monkeypatch.setattr(os, "execve", lambda *given: asked.append(given))
    use_huge_pages()
    assert asked == []
