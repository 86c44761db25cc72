"""The report of a Noisy Student: a self-contained HTML page, and a poster."""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import groupby
from pathlib import Path

import numpy as np

from train.console import percent, short_name
from train.noisy_student.plots import (
    EXAMPLE_HEADINGS,
    accuracy_chart,
    balance_chart,
    confidence_chart,
    example_kind,
    headline,
    poster,
    short_count,
)
from train.noisy_student.summary import (
    Example,
    LabelSummary,
    ModelSummary,
    RoundSummary,
    Summary,
)
from train.run.page import (
    chart,
    details,
    document,
    duration_text,
    escape,
    gallery,
    image,
    section,
    table,
    tiles,
)
from train.run.plots import save
from train.run.report_settings import environment_details, flag_rows
from train.storage import replace_file

__all__ = ["html_page", "write_report"]

_CHART = (4.2, 3.7)  # Inches: two side by side, or one at 390 pixels.


def write_report(
    out: Path, summary: Summary, read: Callable[[int], np.ndarray]
) -> None:
    """Writes the page, `report.html`, and the poster, `report.png`.

    Args:
      out: the folder to write to.
      summary: summary of the Noisy Student.
      read: index -> unlabelled image, `uint8 [h, w, C]`.
    """
    replace_file(out / "report.html", html_page(summary, read))
    save(poster(summary, read), out / "report.png")


def html_page(summary: Summary, read: Callable[[int], np.ndarray]) -> str:
    """The page, which needs no other file.

    Args:
      summary: summary of the Noisy Student.
      read: index -> unlabelled image, `uint8 [h, w, C]`.
    """
    rounds = [
        _round(summary, number, each, read)
        for number, each in enumerate(summary.rounds, 1)
    ]
    return document(
        "Noisy Student",
        headline(summary),
        _introduction(summary),
        [_overview(summary), *rounds, _reproduction(summary)],
    )


def _introduction(summary: Summary) -> str:
    teacher, *students = (f"({escape(_describe(model))})" for model in summary.models)
    sentences = [
        f"The teacher {teacher} was trained on {summary.labels:,} labelled images of "
        f"{escape(summary.data)}.",
        f"Without noise, it labelled {summary.rounds[0].labels.images:,} other images; "
        f"student 1 {students[0]} was trained on both, with noise.",
        *(
            f"Student {number - 1} then labelled these images again for student "
            f"{number} {students[number - 1]}."
            for number, _ in enumerate(summary.rounds[1:], 2)
        ),
    ]
    if summary.final:
        sentences.append(
            "Finally, the last student was fine-tuned on the labelled images alone, at "
            f"{summary.final.image_size} pixels and without augmentation."
        )
    return f"<p>{' '.join(sentences)}</p>"


def _overview(summary: Summary) -> str:
    accuracies = chart(
        partial(accuracy_chart, summary=summary),
        (max(4.2, 0.8 + 1.15 * len(summary.models)), 3.9),
        "Accuracy of each model and of its pseudo-labels.",
        f"Accuracy of each model on the {summary.test_images:,} {summary.split} images"
        + (
            ", and of its pseudo-labels of the unlabelled images: of all of them, and "
            "of those that its student was trained on. "
            if summary.rounds[0].labels.accuracy is not None
            else ". "
        )
        + "The axis does not start at 0.",
    )
    rows = [
        (
            f"{model.stage}: {model.model}",
            f"{model.parameters:,}",
            f"{model.image_size} px",
            percent(model.accuracy),
            f"{model.loss:.3f}",
            percent(model.calibration_error),
            f"{model.steps:,}",
            duration_text(model.seconds),
        )
        for model in summary.models
    ]
    header = (
        "stage",
        "parameters",
        "images",
        "accuracy",
        "loss",
        "calibration error",
        "steps",
        "training",
    )
    note = (
        f"Accuracy, loss (nats) and calibration error on the {summary.split} images. "
        f"Training and labelling took {duration_text(summary.seconds)} in total."
    )
    return section(
        "Models",
        f'<div class="charts">{accuracies}</div>',
        table(header, rows),
        f'<p class="note">{escape(note)}</p>',
    )


def _round(
    summary: Summary, number: int, each: RoundSummary, read: Callable[[int], np.ndarray]
) -> str:
    labels, student = each.labels, each.student
    teacher = summary.models[number - 1]
    gain = 100 * (student.accuracy - teacher.accuracy)
    figures = [
        (
            percent(teacher.accuracy),
            f"{summary.roles[number - 1]}: {_describe(teacher)}",
        ),
        (
            percent(student.accuracy),
            f"{summary.roles[number]}: {_describe(student)}; {gain:+.2f} points",
        ),
        (f"{labels.kept:,}", f"of {labels.images:,} images kept"),
    ]
    if labels.accuracy is not None:
        figures.append((percent(labels.accuracy), "of all pseudo-labels are correct"))
    if labels.kept_accuracy is not None:
        figures.append(
            (percent(labels.kept_accuracy), "of the kept pseudo-labels are correct")
        )
    names = summary.class_names
    confidence = chart(
        partial(confidence_chart, summary=summary, labels=labels),
        _CHART,
        f"Round {number}: histogram of the confidence of the pseudo-labels.",
        _confidence_caption(labels, summary.min_confidence),
    )
    balance = chart(
        partial(balance_chart, summary=summary, labels=labels),
        (_CHART[0], max(_CHART[1], 1.5 + 0.24 * min(len(names), 30))),
        f"Round {number}: images per class, before and after filtering and balancing.",
        _balance_caption(labels, summary.per_class),
    )
    examples = "".join(
        f"<h3>{EXAMPLE_HEADINGS[kind]}</h3>"
        + gallery(_example(example, names, read) for example in group)
        for kind, group in groupby(labels.examples, example_kind)
    )
    seconds = labels.seconds
    labelling = "" if seconds is None else f"Labelling took {duration_text(seconds)}. "
    return section(
        f"Round {number}: {summary.roles[number]} learns from "
        f"{summary.roles[number - 1]}",
        tiles(figures),
        f'<div class="charts">{confidence}{balance}</div>',
        examples,
        '<p class="note">Each image is shown with its pseudo-label and the teacher\'s '
        f"confidence. {labelling}Training the student took "
        f"{duration_text(student.seconds)}.</p>",
    )


def _describe(model: ModelSummary) -> str:
    return f"{model.model}, {short_count(model.parameters)} parameters"


def _confidence_caption(labels: LabelSummary, threshold: float) -> str:
    is_known = labels.histogram_right is not None
    colours = "; blue if that is correct, orange if it is wrong" if is_known else ""
    left_out = (
        f"Images to the left of {threshold:g} are left out."
        if threshold > 0
        else "No image is left out for low confidence."
    )
    return (
        f"The {labels.images:,} unlabelled images by the probability of their most "
        f"probable class{colours}. {left_out} All rounds have the same scale."
    )


def _balance_caption(labels: LabelSummary, per_class: int) -> str:
    quota = (
        f"The {per_class:,} most confident images per class are taken; classes with "
        f"fewer are filled up with duplicates, {labels.duplicates:,} in total."
        if per_class
        else "Classes are not balanced."
    )
    marks = " Marks show the true number of images per class." if labels.true else ""
    return (
        "Images by their pseudo-label: all of them (before), and those that the "
        f"student was trained on (after). {quota}{marks}"
    )


def _reproduction(summary: Summary) -> str:
    return section(
        "How to reproduce it",
        f"<pre>{escape(summary.command)}</pre>"
        "<p>The same command writes this page again. Unlabelled images: "
        f"<code>{escape(summary.unlabelled)}</code>; pseudo-labels: "
        f"{escape(summary.kind)}.</p>",
        details("All settings", table((), flag_rows(summary.settings), "words")),
        environment_details(summary.machine, summary.versions),
    )


def _example(
    example: Example, names: Sequence[str], read: Callable[[int], np.ndarray]
) -> str:
    predicted, confidence = names[example.predicted], 100 * example.confidence
    caption = f"{escape(short_name(predicted))}, {confidence:.0f}&nbsp;%"
    if example_kind(example) == "wrong" and example.true is not None:
        true = escape(short_name(names[example.true]))
        caption = f'<span class="wrong">{caption}</span><br>true: {true}'
    return image(read(example.index), example.name, caption)
