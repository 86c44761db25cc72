"""The comparison of several runs: their figures, and one self-contained HTML page."""

import importlib.util
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from cnn_flax.installing import install_command
from train.console import percent
from train.run.page import chart, document, escape, section, table
from train.run.report_settings import flags_of, format_value

__all__ = ["HEADER", "Runs", "comparison_page", "comparison_rows"]

# Maps a run's label to the contents of its `config.json` and its `metrics.jsonl`.
Runs = Mapping[str, tuple[Mapping[str, Any], Sequence[Mapping[str, Any]]]]

HEADER = ("run", "model", "epochs", "loss", "accuracy", "best accuracy")


def comparison_rows(runs: Runs) -> list[tuple[str, ...]]:
    """The figures of runs, one row per run, with the columns of `HEADER`."""
    rows = []
    for label, (record, lines) in runs.items():
        evaluated = [line for line in lines if line["split"] != "train"]
        figures = ["", "", ""]
        if evaluated:
            best = max(evaluated, key=lambda line: line["accuracy"])
            figures = [
                f"{evaluated[-1]['loss']:.4f}",
                percent(evaluated[-1]["accuracy"]),
                f"{percent(best['accuracy'])} (epoch {best['epoch']:g})",
            ]
        epoch = f"{lines[-1]['epoch']:g}" if lines else "0"
        epochs = f"{epoch} of {record['config']['epochs']}"
        rows.append((label, record["model"]["name"], epochs, *figures))
    return rows


def comparison_page(runs: Runs) -> str:
    """The page: curves in one chart each, figures, and the flags that differ."""
    parts = [section("Figures", table(HEADER, comparison_rows(runs)))]
    introduction = ""
    if importlib.util.find_spec("matplotlib") is None:
        introduction = (
            '<p class="note">This page has no charts, as matplotlib is not installed: '
            f"<code>{escape(install_command('plots'))}</code></p>"
        )
    else:
        parts.insert(0, section("Learning curves", _charts(runs)))
    parts.append(section("Settings that differ", _differences(runs)))
    title = f"{len(runs)} runs" if len(runs) > 1 else "1 run"
    return document("cnn_flax comparison", title, introduction, parts)


def _charts(runs: Runs) -> str:
    from train.run.curves import comparison_chart, run_keys

    lines = {label: log for label, (_, log) in runs.items()}
    pictures = [
        chart(
            partial(comparison_chart, runs=lines, name=name),
            (4.2, 3.3),
            f"{name} of each run over the epochs",
            f"{name.capitalize()} in training (thin) and in evaluation (thick).",
        )
        for name in ("loss", "accuracy")
    ]
    keys = "".join(
        f'<li><span style="color: {color}">{symbol}</span> {escape(label)}</li>'
        for label, (color, symbol) in zip(lines, run_keys(len(lines)), strict=True)
    )
    return f'<ul class="keys">{keys}</ul><div class="charts">{"".join(pictures)}</div>'


def _differences(runs: Runs) -> str:
    values = {label: flags_of(record) for label, (record, _) in runs.items()}
    names = dict.fromkeys(name for flags in values.values() for name in flags)
    rows = [
        (f"--{name.replace('_', '-')}", *cells)
        for name in names
        if len(set(cells := [format_value(v.get(name)) for v in values.values()])) > 1
    ]
    return table(("flag", *values), rows) if rows else '<p class="note">None.</p>'
