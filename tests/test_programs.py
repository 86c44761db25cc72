"""The training programs, found from the library: in a checkout and from its wheel."""

import os
import pathlib
import re
import subprocess
import sys
import sysconfig
import types
import zipfile

import pytest

import cnn_flax
from cnn_flax import programs
from cnn_flax.cli import main
from cnn_flax.installing import install_command

ROOT = pathlib.Path(__file__).parents[1]


def test_the_programs_of_a_checkout_are_its_own():
    train = programs.load()
    assert pathlib.Path(train.__file__).parents[1] == ROOT


def test_another_module_of_the_name_is_said(monkeypatch):
    other = types.ModuleType("train")
    other.__file__ = "/home/ada/train.py"
    monkeypatch.setitem(sys.modules, "train", other)
    with pytest.raises(ImportError, match=r"name train is imported, /home/ada/train\."):
        programs.load()


def test_missing_packages_are_said_with_the_extra(monkeypatch, capsys):
    monkeypatch.setattr(programs, "_EXTRAS", ("no_such_package",))
    assert main(["train"]) == 2
    assert install_command("train") in capsys.readouterr().err


def test_the_programs_name_the_command_that_they_were_called_by(capsys):
    assert main(["train"]) == 0
    shown = capsys.readouterr().out
    assert "cnn-flax train evaluate DIR" in shown
    assert "python -m train" not in shown
    assert main(["train", "digit_resnet"]) == 2
    assert "`cnn-flax train` lists them" in capsys.readouterr().err


def test_changelog_and_citation_have_the_version():
    changelog = (ROOT / "CHANGELOG.md").read_text("utf-8")
    citation = (ROOT / "CITATION.cff").read_text("utf-8")
    newest = re.search(r"^## (\d\S*) - (\S+)$", changelog, re.M)
    assert newest is not None
    assert newest[1] == cnn_flax.__version__
    assert f"\nversion: {newest[1]}\ndate-released: {newest[2]}\n" in citation


@pytest.fixture(scope="module")
def dist(tmp_path_factory):
    """The source archive, and the wheel that is built from it."""
    pytest.importorskip("build")
    pytest.importorskip("hatchling")
    out = tmp_path_factory.mktemp("dist")
    words = ["-m", "build", "--no-isolation", "--outdir", out, ROOT]
    subprocess.run([sys.executable, *words], check=True, capture_output=True)
    return out


@pytest.mark.slow
def test_the_wheel_claims_no_name_but_the_library_s(dist):
    (wheel,) = dist.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    version = f"cnn_flax-{cnn_flax.__version__}"
    assert {name.partition("/")[0] for name in names} == {
        "cnn_flax",
        f"{version}.dist-info",
    }
    carried = {
        name.removeprefix("cnn_flax/_programs/")
        for name in names
        if name.startswith("cnn_flax/_programs/")
    }
    sources = {str(p.relative_to(ROOT)) for p in (ROOT / "train").rglob("*.py")}
    assert carried == sources


@pytest.mark.slow
def test_the_archives_are_ready_to_be_published(dist):
    pytest.importorskip("twine")
    words = ["-m", "twine", "check", "--strict", *dist.iterdir()]
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


_SCRIPT = """
from cnn_flax import programs
train = programs.load()
assert "_programs" in train.__file__, train.__file__
print(train.evaluate("runs/digits", quiet=True).figures["accuracy"])
"""


@pytest.mark.slow
def test_the_programs_run_from_the_wheel_next_to_a_train_of_one_s_own(dist, tmp_path):
    (wheel,) = dist.glob("*.whl")
    environment = tmp_path / "environment"
    words = [sys.executable, "-m", "venv", "--without-pip", environment]
    subprocess.run(words, check=True)
    python = environment / "bin" / "python"
    site = next((environment / "lib").glob("python*/site-packages"))
    # The packages that the tests use, but not what their own .pth files add, such as an
    # editable install of this project.
    (site / "installed.pth").write_text(sysconfig.get_path("purelib"))
    install = ["install", "--no-deps", "--no-index", "--quiet", wheel]
    words = [sys.executable, "-m", "pip", "--python", python, *install]
    subprocess.run(words, check=True)
    (tmp_path / "train.py").write_text("raise SystemExit('not ours')")

    def run(*words):
        names = ("PYTHONPATH", "GLIBC_TUNABLES")
        clean = {k: v for k, v in os.environ.items() if k not in names}
        done = subprocess.run(
            words, cwd=tmp_path, env=clean, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    program = environment / "bin" / "cnn-flax"
    small = ["stage_sizes=(1,)", "width=4", "small_inputs=True"]
    flags = ["--epochs", "1", "--out", "runs/digits", "--model-fields", *small]
    shown = run(program, "train", "digits_resnet", *flags)
    (accuracy,) = re.findall(r"│ accuracy +│ +([\d.]+) % ", shown)
    # Not with `-c`, which would put the folder with the other train.py first.
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts" / "evaluate.py").write_text(_SCRIPT)
    again = run(python, "scripts/evaluate.py")
    assert 100 * float(again) == pytest.approx(float(accuracy), abs=0.3)
