"""The report of a Noisy Student: a self-contained HTML page, and a poster."""

import base64
import html
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from train.console import printable
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
from train.run.plots import not_as_math, save
from train.storage import replace_file

__all__ = ["html_page", "write_report"]

_THUMBNAIL = 160  # Longer side of an example on the page, in pixels.

_STYLE = """
:root { --ink: #1f2937; --soft: #64748b; --line: #e5e7eb; --blue: #1d4ed8;
  --orange: #c2410c; }
* { box-sizing: border-box; }
body { margin: 0; background: #f8fafc; color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 24px 16px 64px; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 8px; overflow-wrap: anywhere; }
@media (max-width: 600px) { h1 { font-size: 1.4rem; } section { padding: 14px; } }
h2 { font-size: 1.3rem; line-height: 1.3; margin: 0 0 4px; }
h3 { font-size: 1rem; margin: 24px 0 8px; }
p { margin: 0 0 12px; max-width: 72ch; }
.above { color: var(--soft); margin: 0 0 4px; }
section { background: white; border: 1px solid var(--line); border-radius: 10px;
  padding: 20px; margin-top: 20px; }
.charts { display: grid; gap: 20px; align-items: start;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 400px), 1fr)); }
figure { margin: 0; }
.charts > figure { max-width: 720px; }
.charts img { width: 100%; height: auto; display: block; }
figcaption { color: var(--soft); font-size: .875rem; margin-top: 6px; }
.tiles { display: grid; gap: 12px; margin: 16px 0; padding: 0; list-style: none;
  grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); }
.tiles li { border-left: 3px solid var(--line); padding-left: 10px; }
.tiles b { display: block; font-size: 1.35rem; line-height: 1.3; }
.tiles span { color: var(--soft); font-size: .875rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: 6px 10px; border-bottom: 1px solid var(--line);
  white-space: nowrap; }
th { font-weight: 600; color: var(--soft); font-size: .875rem; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
.pictures { display: grid; gap: 14px 10px;
  grid-template-columns: repeat(auto-fill, minmax(92px, 1fr)); }
.pictures img { width: 100%; aspect-ratio: 1; object-fit: contain; background: #0f172a;
  image-rendering: pixelated; border-radius: 4px; display: block; }
.pictures figcaption { font-size: .8rem; line-height: 1.3; margin-top: 4px;
  color: var(--ink); overflow-wrap: anywhere; }
.wrong { color: var(--orange); }
.settings td { text-align: left; white-space: normal; overflow-wrap: anywhere; }
.settings td:first-child { white-space: nowrap; color: var(--soft); }
code { background: #f1f5f9; padding: 1px 4px; border-radius: 4px;
  overflow-wrap: anywhere; }
.note { color: var(--soft); font-size: .875rem; margin: 14px 0 0; }
summary { cursor: pointer; font-weight: 600; }
"""


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
    title = _escape(headline(summary))
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{_STYLE}</style>
</head>
<body>
<main>
<header>
<p class="above">Noisy Student</p>
<h1>{title}</h1>
{_introduction(summary)}
</header>
{_overview(summary)}
{"".join(rounds)}
{_reproduction(summary)}
</main>
</body>
</html>
"""


def _introduction(summary: Summary) -> str:
    teacher, *students = (f"({_escape(_describe(model))})" for model in summary.models)
    sentences = [
        f"The teacher {teacher} was trained on {summary.labels:,} labelled images of "
        f"{_escape(summary.data)}.",
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
    chart = _chart(
        partial(accuracy_chart, summary=summary),
        (6.2, 4.2),
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
            f"{_escape(model.stage)}: {_escape(model.model)}",
            f"{model.parameters:,}",
            f"{model.image_size} px",
            _percent(model.accuracy),
            f"{model.loss:.3f}",
            _percent(model.calibration_error),
            f"{model.steps:,}",
            _time(model.seconds),
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
    return f"""<section>
<h2>Models</h2>
<div class="charts">{chart}</div>
<div class="wide">{_table(header, rows)}</div>
<p class="note">Accuracy, loss (nats) and calibration error on the
{summary.split} images. Training and labelling took {_time(summary.seconds)} in
total.</p>
</section>
"""


def _round(
    summary: Summary, number: int, each: RoundSummary, read: Callable[[int], np.ndarray]
) -> str:
    labels, student = each.labels, each.student
    teacher = summary.models[number - 1]
    gain = 100 * (student.accuracy - teacher.accuracy)
    tiles = [
        (
            _percent(teacher.accuracy),
            f"{summary.roles[number - 1]}: {_describe(teacher)}",
        ),
        (
            _percent(student.accuracy),
            f"{summary.roles[number]}: {_describe(student)}; {gain:+.2f} points",
        ),
        (f"{labels.kept:,}", f"of {labels.images:,} images kept"),
    ]
    if labels.accuracy is not None:
        tiles.append((_percent(labels.accuracy), "of all pseudo-labels are correct"))
    if labels.kept_accuracy is not None:
        tiles.append(
            (_percent(labels.kept_accuracy), "of the kept pseudo-labels are correct")
        )
    names = summary.class_names
    confidence = _chart(
        partial(confidence_chart, summary=summary, labels=labels),
        (5.2, 3.6),
        "Histogram of the confidence of the pseudo-labels.",
        _confidence_caption(labels, summary.min_confidence),
    )
    balance = _chart(
        partial(balance_chart, labels=labels, names=names),
        (5.2, max(3.6, 1.2 + 0.24 * min(len(names), 30))),
        "Images per class, before and after filtering and balancing.",
        _balance_caption(labels, summary.per_class),
    )
    shown = "".join(
        f"<h3>{EXAMPLE_HEADINGS[kind]}</h3><div class='pictures'>"
        + "".join(_example(example, names, read) for example in group)
        + "</div>"
        for kind, group in groupby(labels.examples, example_kind)
    )
    seconds = labels.seconds
    labelling = "" if seconds is None else f"Labelling took {_time(seconds)}. "
    return f"""<section>
<h2>Round {number}: {summary.roles[number]} learns from {summary.roles[number - 1]}</h2>
<ul class="tiles">{"".join(map(_tile, tiles))}</ul>
<div class="charts">{confidence}{balance}</div>
{shown}
<p class="note">Each image is shown with its pseudo-label and the teacher's confidence.
{labelling}Training the student took {_time(student.seconds)}.</p>
</section>
"""


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
    rows = [
        (_escape(name.replace("_", "-")), _escape(_format_value(value)))
        for name, value in summary.settings.items()
    ]
    environment = {**summary.machine, **summary.versions}
    cells = [
        (_escape(name), _escape(str(value))) for name, value in environment.items()
    ]
    return f"""<section>
<h2>How to reproduce it</h2>
<p><code>{_escape(summary.command)}</code></p>
<p>The same command writes this page again. Unlabelled images:
<code>{_escape(summary.unlabelled)}</code>; pseudo-labels: {_escape(summary.kind)}.</p>
<details><summary>All settings</summary>
<div class="settings">{_table((), rows)}</div></details>
<details><summary>Machine and versions</summary>
<div class="settings">{_table((), cells)}</div></details>
</section>
"""


def _chart(
    draw: Callable[[Axes], None], size: tuple[float, float], alt: str, caption: str
) -> str:
    figure = Figure(figsize=size, layout="constrained")
    draw(figure.subplots())
    not_as_math(figure)
    file = io.BytesIO()
    # So that the same summary gives the same bytes.
    with matplotlib.rc_context({"svg.hashsalt": "noisy student"}):
        save(figure, file, format="svg", metadata={"Date": None})
    return (
        f'<figure><img src="{_data_url("image/svg+xml", file.getvalue())}" '
        f'alt="{_escape(alt)}"><figcaption>{_escape(caption)}</figcaption></figure>'
    )


def _example(
    example: Example, names: Sequence[str], read: Callable[[int], np.ndarray]
) -> str:
    image = Image.fromarray(read(example.index).squeeze())
    image.thumbnail((_THUMBNAIL, _THUMBNAIL))
    file = io.BytesIO()
    image.save(file, "PNG")
    predicted, confidence = names[example.predicted], 100 * example.confidence
    caption = f"{_escape(predicted)}, {confidence:.0f}&nbsp;%"
    if example_kind(example) == "wrong" and example.true is not None:
        true = _escape(names[example.true])
        caption = f'<span class="wrong">{caption}</span><br>true: {true}'
    return (
        f'<figure><img src="{_data_url("image/png", file.getvalue())}" '
        f'alt="{_escape(example.name)}" title="{_escape(example.name)}">'
        f"<figcaption>{caption}</figcaption></figure>"
    )


def _escape(text: str) -> str:
    return html.escape(printable(text))


def _tile(tile: tuple[str, str]) -> str:
    value, meaning = tile
    return f"<li><b>{_escape(value)}</b><span>{_escape(meaning)}</span></li>"


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """An HTML table; header and cells are HTML too."""
    head = "".join(f"<th>{cell}</th>" for cell in header)
    body = "".join(
        f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows
    )
    return f"<table>{f'<tr>{head}</tr>' if header else ''}{body}</table>"


def _data_url(media_type: str, content: bytes) -> str:
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"


def _percent(share: float) -> str:
    return f"{100 * share:.2f} %"


def _time(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


def _format_value(value: Any) -> str:
    if isinstance(value, Mapping):
        value = [f"{name}={part}" for name, part in value.items()]
    return " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
