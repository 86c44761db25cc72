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

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="only on Linux")


def run_program(folder, **environment):
    (folder / "program.py").write_text(PROGRAM)
    inherited = {k: v for k, v in os.environ.items() if k != "GLIBC_TUNABLES"}
    process = subprocess.Popen(
        [sys.executable, "-O", "-m", "program", "--a", "b c"],
        cwd=folder,
        env={**inherited, **environment},
        stdout=subprocess.PIPE,
        text=True,
    )
    printed, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    return printed.strip().removeprefix(f"{process.pid} ")


@on_linux
def test_the_program_restarts_with_its_arguments_in_the_same_process(tmp_path):
    assert run_program(tmp_path) == "glibc.malloc.hugetlb=1 1 ['--a', 'b c']"


@on_linux
@pytest.mark.parametrize("own", ["", "glibc.malloc.check=1"])
def test_a_variable_that_the_user_set_is_left_alone(tmp_path, own):
    assert run_program(tmp_path, GLIBC_TUNABLES=own) == f"{own} 1 ['--a', 'b c']"


def test_a_program_that_cannot_restart_continues(monkeypatch):
    calls = []

    def execve(path, arguments, environment):
        calls.append((path, environment["GLIBC_TUNABLES"]))
        raise OSError("Out of memory")

    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(os, "execve", execve)
    use_huge_pages()
    assert calls == [(sys.executable, "glibc.malloc.hugetlb=1")]
    assert "GLIBC_TUNABLES" not in os.environ


def test_nothing_is_done_on_other_systems(monkeypatch):
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    monkeypatch.setattr(sys, "platform", "darwin")
    calls = []
    monkeypatch.setattr(os, "execve", lambda *arguments: calls.append(arguments))
    use_huge_pages()
    assert calls == []
