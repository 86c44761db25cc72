"""The parts of a report on classes and on single images."""

import itertools
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from train.console import percent, short_name
from train.data import Source
from train.run.evaluation import Evaluation
from train.run.page import chart, details, escape, gallery, image, section, table

__all__ = ["classes_section", "images_sections"]

_WORST, _LEAST_SURE = 18, 12  # Images.
_ALL_ROWS = 30  # With more classes, those with the lowest accuracy come first.
_FIRST_ROWS = 15
_PAIRS = 10
_MATRIX = 2000  # The most classes whose confusion matrix is drawn.


def classes_section(
    evaluation: Evaluation, class_names: Sequence[str], has_charts: bool
) -> str:
    """The confusion matrix, and a table with a row per class.

    Args:
      evaluation: the evaluation.
      class_names: K names.
      has_charts: whether matplotlib is there to draw the matrix, which is left out for
        more than 2,000 classes.
    """
    classes = len(class_names)
    parts = []
    if has_charts and classes <= _MATRIX:
        from train.run.charts import confusion_chart, confusion_size

        draw = partial(confusion_chart, evaluation=evaluation, class_names=class_names)
        caption = (
            "Rows are true classes, columns are predictions; the stronger the colour, "
            "the larger the share of the row."
        )
        alt = "Confusion matrix: images by true class and prediction."
        parts.append(chart(draw, confusion_size(class_names), alt, caption))
    if pairs := _confused(evaluation, class_names):
        rows = table(("true class → taken for", "images, of the class"), pairs)
        parts.append(f"<div><h3>Most frequent confusions</h3>{rows}</div>")
    parts = [f'<div class="charts">{"".join(parts)}</div>']
    header = (
        "class",
        "images",
        "accuracy",
        "precision",
        "mean confidence",
        "most often taken for",
    )
    rows = _rows(evaluation, class_names)
    if classes <= _ALL_ROWS:
        parts.append(f"<h3>By class</h3>{table(header, rows)}")
    else:
        shares = np.nan_to_num(evaluation.class_accuracy(classes), nan=2.0)
        worst = [rows[i] for i in np.argsort(shares, kind="stable")[:_FIRST_ROWS]]
        parts.append(
            f"<h3>The {_FIRST_ROWS} classes with the lowest accuracy</h3>"
            + table(header, worst)
            + details(f"All {classes:,} classes", table(header, rows))
        )
    parts.append(
        '<p class="note">Accuracy: share of the class\'s images that are recognized. '
        "Precision: share of the images taken for it that are of the class.</p>"
    )
    return section("Classes", *parts)


def images_sections(
    evaluation: Evaluation, source: Source
) -> dict[str, Callable[[], str]]:
    """Functions that draw the worst and the least sure images, by heading."""
    worst = evaluation.worst(_WORST)
    unsure = evaluation.least_sure(_LEAST_SURE, without=worst)
    return {
        "Worst images": lambda: section(
            "Worst images",
            "<p>Their labels have the lowest probability, worst first. A wrong label "
            "in the data shows up here, as well as a wrong prediction.</p>",
            gallery(_figure(evaluation, source, i) for i in worst),
        ),
        "Least sure images": lambda: section(
            "Least sure images",
            "<p>Their predictions have the lowest probability, right or wrong, without "
            "those above. More images like these would teach the model most.</p>",
            gallery(_figure(evaluation, source, i) for i in unsure),
        ),
    }


def _figure(evaluation: Evaluation, source: Source, row: int) -> str:
    index = int(evaluation.index[row])
    label, prediction = int(evaluation.label[row]), int(evaluation.prediction[row])
    names = source.class_names
    sure = f"{100 * evaluation.confidence[row]:.0f}&nbsp;%"
    caption = f"{escape(short_name(names[prediction]))}, {sure}"
    if label != prediction:
        true = escape(short_name(names[label]))
        caption = f'<span class="wrong">{caption}</span><br>true: {true}'
    return image(source.read(index), source.name(index), caption)


def _confused(
    evaluation: Evaluation, class_names: Sequence[str]
) -> list[tuple[str, ...]]:
    """The pairs of classes that are confused most often, most frequent first."""
    classes = len(class_names)
    images = np.bincount(evaluation.label, minlength=classes)
    rows = zip(*evaluation.mistakes(classes), strict=True)
    return [
        (
            f"{short_name(class_names[int(true)])} → "
            f"{short_name(class_names[int(taken)])}",
            f"{count:,} ({percent(count / images[true])})",
        )
        for true, taken, count in itertools.islice(rows, _PAIRS)
    ]


def _rows(evaluation: Evaluation, class_names: Sequence[str]) -> list[tuple[str, ...]]:
    """One row per class, in their order; empty cells where nothing is known."""
    classes, label = len(class_names), evaluation.label
    images = np.bincount(label, minlength=classes)
    taken = np.bincount(evaluation.prediction, minlength=classes)
    right = np.bincount(label[label == evaluation.prediction], minlength=classes)
    sums = np.bincount(label, evaluation.confidence, minlength=classes)
    most_often: dict[int, str] = {}
    for true, other, count in zip(*evaluation.mistakes(classes), strict=True):
        text = f"{short_name(class_names[int(other)])} ({count:,})"
        most_often.setdefault(int(true), text)
    return [
        (
            name,
            f"{images[k]:,}",
            percent(right[k] / images[k]) if images[k] else "",
            percent(right[k] / taken[k]) if taken[k] else "",
            percent(sums[k] / images[k]) if images[k] else "",
            most_often.get(k, ""),
        )
        for k, name in enumerate(class_names)
    ]
