import io
import sys

import numpy as np
from rich.console import Console

from train.data import open_source
from train.run.evaluation import Evaluation
from train.run.pictures import draw

FOUR = Evaluation(
    index=np.arange(4),
    label=np.array([0, 0, 0, 1]),
    prediction=np.array([0, 0, 1, 1]),
    confidence=np.ones(4),
    rank=np.array([0, 0, 1, 0]),
    loss=np.ones(4),
)


def test_without_matplotlib_a_line_says_how_to_get_pictures(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    console = Console(file=io.StringIO(), width=120)
    source = open_source("digits", "test")
    draw(tmp_path, {}, FOUR, source, console)
    text = console.file.getvalue()  # pyright: ignore
    assert text == "For pictures of the run: pip install 'cnn-flax[plots]'\n"
    assert not list(tmp_path.iterdir())
