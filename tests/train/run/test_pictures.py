import io
import sys
from typing import Any

from rich.console import Console

from cnn_flax.installing import install_command
from train.data import open_source
from train.run.pictures import draw


def test_without_matplotlib_a_line_says_how_to_get_pictures(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    console = Console(file=io.StringIO(), width=120)
    source = open_source("digits", "test")
    evaluation: Any = None  # Not needed without matplotlib.
    draw(tmp_path, {}, evaluation, source, console)
    text = console.file.getvalue()  # pyright: ignore
    assert text == f"For pictures of the run: {install_command('plots')}\n"
    assert not list(tmp_path.iterdir())
