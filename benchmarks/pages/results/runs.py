"""Training runs of the page's experiments."""

import io
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.measurements import Row
from train.config import Config
from train.run.inference import evaluate_run
from train.run.loop import fit

__all__ = ["silent", "train", "train_and_test"]


def silent() -> Console:
    """A console that shows nothing."""
    return Console(file=io.StringIO())


def train(config: Config, run: Path) -> dict[str, Any]:
    """Trains without output; returns the result, or that of the finished run."""
    return fit(config, run, console=silent())


def train_and_test(config: Config, run: Path) -> Row:
    """Trains and evaluates on the test images: accuracy, steps, parameters, seconds."""
    result = train(config, run)
    evaluation, _ = evaluate_run(run, split="test", batch_size=1000)
    counts = {key: result[key] for key in ("steps", "parameters", "seconds")}
    return {"accuracy": evaluation.figures()["accuracy"], **counts}
