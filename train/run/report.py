"""The report of a run or an evaluation: one self-contained HTML page."""

import importlib.util
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from cnn_flax.installing import install_command
from train.console import (
    FigureRow,
    figure_rows,
    interval_text,
    percent,
    program_name,
)
from train.data import Source
from train.run.bootstrap import intervals
from train.run.evaluation import AnyEvaluation, Evaluation
from train.run.multi_label import MultiLabelEvaluation
from train.run.page import chart, document, duration_text, escape, section, tiles
from train.run.report_classes import classes_section, images_sections
from train.run.report_multi_label import multi_label_sections
from train.run.report_settings import next_steps_section, settings_section
from train.run.report_unlabelled import unlabelled_section, was_measured

__all__ = ["Report", "lowest_loss", "report_page"]

Json = Mapping[str, Any]

_CHART = (4.2, 3.3)  # Inches: two side by side, or one at 390 pixels.


@dataclass(frozen=True)
class Report:
    """What a report is about.

    Attributes:
      evaluation: the evaluation.
      source: its images.
      split: the split that they are.
      model: name of the model.
      run: the run's folder; None for a model with weights from elsewhere.
      record: the contents of the run's `config.json`, or None.
      lines: the lines of its `metrics.jsonl`.
      result: the contents of its `result.json`, or None.
      note: what was evaluated, if that is not the run as it was trained.
    """

    evaluation: AnyEvaluation
    source: Source
    split: str
    model: str
    run: Path | None = None
    record: Json | None = None
    lines: Sequence[Json] = ()
    result: Json | None = None
    note: str = ""


def report_page(report: Report, failed: Callable[[str], None]) -> str:
    """The page. A part that cannot be drawn is replaced by a line that says why.

    Without matplotlib, the page has no charts.

    Args:
      report: what it is about.
      failed: called with a line for each part that could not be drawn.
    """
    evaluation, source = report.evaluation, report.source
    images = f"{len(evaluation.label):,} {report.split} images"
    main = _figures(report)[0]
    what = "" if main.name == "accuracy" else f" {main.title}"
    title = f"{report.model} on {source.spec}: {main.value}{what} of {images}"
    has_charts = importlib.util.find_spec("matplotlib") is not None
    introduction = _introduction(report)
    if not has_charts:
        introduction += (
            '<p class="note">This page has no charts, as matplotlib is not installed: '
            f"<code>{escape(install_command('plots'))}</code>, then "
            f"<code>{program_name()} evaluate</code> writes it again.</p>"
        )
    parts: dict[str, Callable[[], str]] = {"Result": partial(_result, report)}
    if has_charts and report.lines:
        parts["Learning curves"] = partial(_curves, report)
        if was_measured(report.lines):
            settings = (report.record or {}).get("config", {}).get("unlabelled", {})
            parts["Unlabelled images"] = partial(
                unlabelled_section, report.lines, settings
            )
    if isinstance(evaluation, MultiLabelEvaluation):
        parts |= multi_label_sections(evaluation, source, has_charts)
    else:
        parts["Classes"] = partial(
            classes_section, evaluation, source.class_names, has_charts
        )
        if has_charts:
            parts["Calibration"] = partial(_calibration, evaluation)
        parts |= images_sections(evaluation, source)
    if report.run is not None and report.record is not None:
        parts["Settings"] = partial(settings_section, report.record)
        parts["How to go on"] = partial(next_steps_section, report.run, report.record)
    sections = [_guarded(name, draw, failed) for name, draw in parts.items()]
    return document("cnn_flax report", title, introduction, sections)


def lowest_loss(record: Json) -> float:
    """The lowest training loss that label smoothing allows, in nats; 0 without it.

    It is the entropy of a smoothed label, for several classes per image of one class's.
    Objectives with a teacher or with unlabelled
    images have other terms: 0 for these.
    """
    config = record["config"]
    smoothing = config.get("optimization", {}).get("label_smoothing", 0.0)
    has_other_terms = config.get("distillation", {}).get("teacher") or config.get(
        "unlabelled", {}
    ).get("unlabelled")
    if not smoothing or has_other_terms:
        return 0.0
    classes = 2 if record.get("multi_label") else len(record["class_names"])
    other = smoothing / classes
    shares = [1 - smoothing + other, *[other] * (classes - 1)]
    return -sum(share * math.log(share) for share in shares if share > 0)


def _guarded(name: str, draw: Callable[[], str], failed: Callable[[str], None]) -> str:
    try:
        return draw()
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        failed(f"{name} could not be drawn: {reason}")
        note = f'<p class="note">This part could not be drawn: {escape(reason)}</p>'
        return section(name, note)


def _introduction(report: Report) -> str:
    sentences = []
    if report.record is not None:
        recipe = report.record.get("recipe", "")
        epochs = report.record["config"]["epochs"]
        sentences.append(
            f"Run <code>{escape(str(report.run))}</code>"
            + (f" of the recipe {escape(recipe)}" if recipe else "")
            + f", {epochs:,} epochs."
        )
        if report.result is None:
            sentences.append("It has not ended: this is its last checkpoint.")
    if report.note:
        sentences.append(escape(report.note))
    return f"<p>{' '.join(sentences)}</p>" if sentences else ""


def _result(report: Report) -> str:
    evaluation, result = report.evaluation, report.result or {}
    ranges = intervals(evaluation)
    shown = [
        (row.value, _with_interval(row.title, row.name, ranges))
        for row in _figures(report)
    ]
    error = _with_interval("calibration error", "calibration_error", ranges)
    shown.append((percent(evaluation.calibration_error()), error))
    if "ema_accuracy" in result:
        shown.append((percent(result["ema_accuracy"]), "accuracy of the EMA"))
    shown.append((f"{len(evaluation.label):,}", f"{report.split} images"))
    if result.get("unreadable_images"):
        shown.append((f"{result['unreadable_images']:,}", "unreadable images"))
    if result:
        shown += [
            (f"{result['parameters']:,}", "parameters"),
            (f"{result['epochs']:,}, {result['steps']:,}", "epochs, steps"),
            (duration_text(result["seconds"]), "training"),
            (f"{result['images_per_second']:,.0f}", "images per second"),
        ]
    return section("Result", tiles(shown))


def _figures(report: Report) -> list[FigureRow]:
    figures, classes = report.evaluation.figures(), len(report.source.class_names)
    rows = figure_rows(figures, classes)
    return [*rows[:-1], rows[-1]._replace(title="loss (nats)")]


def _with_interval(
    title: str, name: str, ranges: Mapping[str, tuple[float, float]]
) -> str:
    """A figure's title with the range that the choice of images leaves open."""
    interval = interval_text(name, ranges.get(name))
    return f"{title}, {interval}" if interval else title


def _curves(report: Report) -> str:
    from train.run.curves import accuracy_chart, loss_chart, split_lines

    record, lines = report.record or {}, report.lines
    floor = lowest_loss(record) if record else 0.0
    train, evaluated = split_lines(lines)
    loss = "Mean negative log probability of the labels."
    smoothing = record.get("config", {}).get("optimization", {}).get("label_smoothing")
    if floor:
        loss = (
            f"The training loss includes label smoothing of {smoothing:g}, which alone "
            f"is {floor:.3f} nats (dotted); the evaluation's has none."
        )
    elif smoothing:
        loss = f"The training loss includes label smoothing of {smoothing:g}."
    accuracy = "Training's is measured on augmented images, while the model changes."
    if evaluated:
        best = max(evaluated, key=lambda line: line["accuracy"])
        last = evaluated[-1]
        accuracy += (
            f" Best: {percent(best['accuracy'])} in epoch {best['epoch']:g} (ring)"
        )
        is_last = best["accuracy"] == last["accuracy"]
        accuracy += (
            ", as in the last one."
            if is_last
            else f"; the last one, whose weights are kept, has "
            f"{percent(last['accuracy'])}."
        )
    charts = [
        chart(
            partial(loss_chart, lines=lines, floor=floor),
            _CHART,
            f"Loss over {len(train)} points of training and {len(evaluated)} "
            "evaluations.",
            loss,
        ),
        chart(
            partial(accuracy_chart, lines=lines),
            _CHART,
            "Accuracy over the epochs.",
            accuracy,
        ),
    ]
    return section("Learning curves", f'<div class="charts">{"".join(charts)}</div>')


def _calibration(evaluation: Evaluation) -> str:
    from train.run.charts import confidence_chart, reliability_chart

    sure = float(evaluation.confidence.mean(dtype="float64"))
    right = evaluation.figures()["accuracy"]
    points = 100 * (sure - right)
    words = "over-confident" if points > 0 else "under-confident"
    sentence = (
        f"The expected calibration error is {percent(evaluation.calibration_error())}. "
        f"On average the model is {percent(sure)} sure and {percent(right)} right: "
        f"{words} by {abs(points):.2f} points."
    )
    charts = [
        chart(
            partial(reliability_chart, evaluation=evaluation),
            _CHART,
            "Reliability diagram: accuracy of images of like confidence.",
            "Accuracy of the images of each range of confidence. A calibrated model's "
            "bars end at the diagonal; below it, the model is too sure.",
        ),
        chart(
            partial(confidence_chart, evaluation=evaluation),
            _CHART,
            "Histogram of confidence, of correct and wrong predictions.",
            "How many images have which confidence.",
        ),
    ]
    body = f'<p>{escape(sentence)}</p><div class="charts">{"".join(charts)}</div>'
    return section("Calibration", body)
