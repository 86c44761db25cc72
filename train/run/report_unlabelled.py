"""The part of a report on how unlabelled images were used, over the run."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from train.run.page import chart, section

__all__ = ["unlabelled_section", "was_measured"]

Lines = Sequence[Mapping[str, Any]]

_CHART = (4.2, 3.3)  # Inches, as the other charts.

_THRESHOLD = ("unlabelled_threshold",)
_SHARES = ("unlabelled_used", "unlabelled_confidence")


def was_measured(lines: Lines) -> bool:
    """Whether a log says how unlabelled images were used."""
    return any(_has(lines, *names) for names in (_SHARES, _THRESHOLD))


def unlabelled_section(lines: Lines, settings: Mapping[str, Any]) -> str:
    """Charts of the thresholds and of the share of the images that is used.

    Args:
      lines: the lines of `metrics.jsonl`.
      settings: the config's group `unlabelled`.
    """
    from train.run.unlabelled_curves import share_chart, threshold_chart

    method = settings.get("consistency", "none")
    charts = []
    if _has(lines, *_THRESHOLD):
        charts.append(
            chart(
                partial(threshold_chart, lines=lines),
                _CHART,
                "Confidence threshold over the epochs.",
                _threshold_caption(lines, method),
            )
        )
    if _has(lines, *_SHARES):
        caption = "Share of the unlabelled images that is learned from"
        if _has(lines, "unlabelled_used_right"):
            caption += ", and with the true class, which is not learned from"
        if not _has(lines, *_THRESHOLD) and "threshold" in settings:
            caption += f". The threshold is {100 * settings['threshold']:g} %"
        if _has(lines, "unlabelled_confidence"):
            caption = (
                "Mean confidence of the guessed labels, and their accuracy if the true "
                "classes are known, which are not learned from"
            )
        charts.append(
            chart(
                partial(share_chart, lines=lines),
                _CHART,
                "Use of the unlabelled images over the epochs.",
                f"{caption}.",
            )
        )
    return section("Unlabelled images", f'<div class="charts">{"".join(charts)}</div>')


def _has(lines: Lines, *names: str) -> bool:
    return any(name in line for line in lines for name in names)


def _threshold_caption(lines: Lines, method: str) -> str:
    caption = "Confidence from which a prediction is learned from"
    if method == "softmatch":
        caption = "Confidence from which a prediction has its full weight"
    if _has(lines, "unlabelled_threshold_lowest"):
        caption += ": mean over the classes, and from the lowest to the highest"
    return f"{caption}."
