"""The parts of a report on images with any number of classes each."""

from collections.abc import Callable
from functools import partial

import numpy as np

from train.console import percent, short_name
from train.data import Source
from train.run.multi_label import MultiLabelEvaluation
from train.run.page import chart, escape, gallery, image, section, table

__all__ = ["multi_label_sections"]

_WORST = 18  # Images.


def multi_label_sections(
    evaluation: MultiLabelEvaluation, source: Source, has_charts: bool
) -> dict[str, Callable[[], str]]:
    """Functions that draw the classes and the worst images, by heading.

    Args:
      evaluation: the evaluation.
      source: its images.
      has_charts: whether matplotlib is there.
    """
    return {
        "Classes": partial(_classes, evaluation, source.class_names, has_charts),
        "Worst images": partial(_worst, evaluation, source),
    }


def _classes(
    evaluation: MultiLabelEvaluation, class_names: tuple[str, ...], has_charts: bool
) -> str:
    charts = ""
    if has_charts:
        from train.run.charts import precision_recall_chart

        drawn = chart(
            partial(
                precision_recall_chart, evaluation=evaluation, class_names=class_names
            ),
            (4.2, 3.6),
            "Precision against recall, by class.",
            "Precision and recall as the probability from which a class is taken "
            "falls, with average precision, of up to seven classes: the lowest.",
        )
        charts = f'<div class="charts">{drawn}</div>'
    header = ("class", "images", "average precision", "precision", "recall")
    note = (
        '<p class="note">A class is taken where its probability is above one half. '
        "Precision: share of the images for which it is taken that have it. Recall: "
        "share of the images with the class for which it is taken.</p>"
    )
    rows = _rows(evaluation, class_names)
    return section("Classes", charts, table(header, rows), note)


def _rows(
    evaluation: MultiLabelEvaluation, class_names: tuple[str, ...]
) -> list[tuple[str, ...]]:
    images = evaluation.label.sum(axis=0).astype(int)
    shares = (evaluation.average_precision(), *evaluation.precision_and_recall())
    cells = [["" if np.isnan(x) else percent(x) for x in column] for column in shares]
    return [
        (name, f"{count:,}", *parts)
        for name, count, *parts in zip(class_names, images, *cells, strict=True)
    ]


def _worst(evaluation: MultiLabelEvaluation, source: Source) -> str:
    return section(
        "Worst images",
        "<p>They have the largest loss, worst first. A wrong label in the data shows "
        "up here, as well as a wrong prediction.</p>",
        gallery(_figure(evaluation, source, i) for i in evaluation.worst(_WORST)),
    )


def _figure(evaluation: MultiLabelEvaluation, source: Source, row: int) -> str:
    index = int(evaluation.index[row])
    taken = _names(evaluation.prediction[row], source)
    true = _names(evaluation.label[row] > 0, source)
    caption = escape(taken)
    if taken != true:
        caption = f'<span class="wrong">{caption}</span><br>true: {escape(true)}'
    return image(source.read(index), source.name(index), caption)


def _names(is_class: np.ndarray, source: Source) -> str:
    names = [short_name(source.class_names[k]) for k in np.flatnonzero(is_class)]
    return ", ".join(names) or "none"
