"""The table of a Noisy Student's models."""

from rich.table import Table

from train.console import duration, percent
from train.noisy_student.summary import Summary

__all__ = ["noisy_student_table"]


def noisy_student_table(summary: Summary) -> Table:
    """The models of a Noisy Student, one row each."""
    columns = ("stage", "model", "parameters", "accuracy", "loss", "training")
    title = f"Noisy Student, on {summary.test_images:,} {summary.split} images"
    table = Table(*columns, title=title, title_justify="left")
    for model in summary.models:
        table.add_row(
            model.stage,
            model.model,
            f"{model.parameters:,}",
            percent(model.accuracy),
            f"{model.loss:.4f}",
            duration(model.seconds),
        )
    return table
