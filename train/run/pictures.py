"""Pictures of a run's results, in its folder."""

import contextlib
import importlib.util
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from cnn_flax.installing import install_command
from train.console import say
from train.data import Source
from train.run.evaluation import Evaluation
from train.run.metrics import read_metrics

Json = Mapping[str, Any]

__all__ = ["draw", "reporting"]


def draw(
    run: Path,
    record: Json,
    evaluation: Evaluation,
    source: Source,
    console: Console,
) -> None:
    """Draws a run's pictures into its folder, if matplotlib is installed.

    A picture that cannot be drawn is reported in one line: the run has its result.

    Args:
      run: the run's folder.
      record: the contents of its `config.json`.
      evaluation: the evaluation of the test images.
      source: the test images.
      console: prints the paths of the pictures.
    """
    if importlib.util.find_spec("matplotlib") is None:
        say(console, f"For pictures of the run: {install_command('plots')}")
        return
    from train.run import plots

    title = f"{record['model']['name']} on {source.spec}"
    names = record["class_names"]
    figures = {
        "learning_curves": lambda: plots.learning_curves(read_metrics(run), title),
        "confusion_matrix": lambda: plots.confusion_matrix(evaluation, names, title),
        "worst_images": lambda: plots.worst_images(
            evaluation, names, source.read, title
        ),
    }
    for name, figure in figures.items():
        path = run / f"{name}.png"
        with reporting(f"{path} could not be drawn", console):
            plots.save(figure(), path, bbox_inches="tight")
            say(console, str(path))


@contextlib.contextmanager
def reporting(failure: str, console: Console) -> Iterator[None]:
    """Reports whatever goes wrong in one line, and continues.

    Args:
      failure: what the line says before the error.
      console: prints the line.
    """
    try:
        yield
    except Exception as error:
        say(console, f"{failure}: {type(error).__name__}: {error}")
