import io

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from cnn_flax.style import new_figure
from tests.support.evaluations import made_up_evaluation
from train.console import short_name
from train.run import plots
from train.run.curves import accuracy_chart, loss_chart
from train.run.unlabelled_curves import share_chart, threshold_chart


@pytest.fixture
def evaluation():
    """40 images of three classes; image i has loss i, every fourth is misclassified."""
    return made_up_evaluation(3, 4, np.full(40, 0.5))


NAMES = ("cat", "dog", "a long name")


def test_curves_show_the_lines_of_the_log():
    lines = [
        {"split": "train", "epoch": 0.5, "loss": 2.0, "accuracy": 0.4},
        {"split": "train", "epoch": 1.0, "loss": 1.0, "accuracy": 0.5},
        {"split": "test", "epoch": 1.0, "loss": 1.5, "accuracy": 0.45},
    ]
    figure = plots.learning_curves(lines, "title")
    loss, accuracy = figure.axes
    np.testing.assert_array_equal(loss.lines[0].get_xydata(), [[0.5, 2], [1, 1]])
    np.testing.assert_array_equal(loss.lines[1].get_xydata(), [[1, 1.5]])
    np.testing.assert_array_equal(accuracy.lines[1].get_xydata(), [[1, 45]])
    assert [text.get_text() for text in accuracy.texts] == ["best 45.00 % (epoch 1)"]


def test_thresholds_are_drawn_with_the_band_of_the_classes():
    names = ("unlabelled_threshold", "_lowest", "_highest")
    names = (names[0], *(names[0] + end for end in names[1:]))
    lines = [
        {"split": "train", "epoch": epoch, **dict(zip(names, values, strict=True))}
        for epoch, *values in ((1, 0.5, 0.2, 0.6), (2, 0.7, 0.4, 0.9))
    ]
    threshold_chart(ax := Figure().subplots(), [*lines, {"split": "test", "epoch": 2}])
    np.testing.assert_allclose(ax.lines[0].get_xydata(), [[1, 50], [2, 70]])
    (band,) = ax.collections
    box = band.get_datalim(ax.transData)
    np.testing.assert_allclose([box.y0, box.y1], [20, 90])


def test_the_share_that_is_used_is_drawn_with_the_share_that_is_right():
    line = {"epoch": 1, "unlabelled_used": 0.5, "unlabelled_used_right": 0.25}
    share_chart(ax := Figure().subplots(), [line])
    assert [line.get_ydata()[0] for line in ax.lines] == [50, 25]
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert labels == ["used", "used, and right"]


def log(losses, accuracies):
    return [
        {"split": "test", "epoch": epoch, "loss": loss, "accuracy": accuracy}
        for epoch, (loss, accuracy) in enumerate(
            zip(losses, accuracies, strict=True), 1
        )
    ]


@pytest.mark.parametrize(
    ("losses", "scale"),
    [([2, 1, 0.1], "log"), ([2, 1.5, 1], "linear"), ([2, 1e-3, 0], "linear")],
)
def test_the_loss_is_logarithmic_over_a_wide_range_without_zero(losses, scale):
    loss_chart(ax := Figure().subplots(), log(losses, [0.5] * 3))
    assert ax.get_yscale() == scale
    low, high = ax.get_ylim()
    assert low <= min(losses) and high >= max(losses)


@pytest.mark.parametrize(
    "accuracies", [[0.1, 0.9, 0.8], [0.2], [0.0, 0.0], [1.0, 1.0], [0.9, 0.2, 0.1]]
)
def test_the_best_epoch_is_ringed_and_its_label_inside_the_axes(accuracies):
    figure = new_figure(4.2, 3.3)
    ax = figure.subplots()
    accuracy_chart(ax, log([1.0] * len(accuracies), accuracies))
    best = max(accuracies)
    (ring,) = (line for line in ax.lines if line.get_markersize() == 9)
    epoch = 1 + accuracies.index(best)
    np.testing.assert_allclose(ring.get_xydata(), [[epoch, 100 * best]])
    figure.draw_without_rendering()
    (text,) = ax.texts
    box, axes = text.get_window_extent(), ax.get_window_extent()
    assert axes.x0 <= box.x0 and box.x1 <= axes.x1
    assert axes.y0 <= box.y0 and box.y1 <= axes.y1


def test_a_comparison_draws_each_run_in_its_colour():
    def lines(accuracy):
        return [
            {"split": "train", "epoch": 0.5, "loss": 2.0, "accuracy": 0.4},
            {"split": "val", "epoch": 1.0, "loss": 1.5, "accuracy": accuracy},
        ]

    figure = plots.comparison({"a": lines(0.5), "b": lines(0.6), "c": []})
    _, accuracy = figure.axes
    legend = accuracy.get_legend()
    assert legend is not None
    names = [text.get_text() for text in legend.get_texts()]
    assert names == ["a: 50.00 %", "b: 60.00 %", "c"]
    curves = [line for line in accuracy.lines if np.size(line.get_xydata())]
    data = [np.asarray(line.get_xydata()).tolist() for line in curves]
    assert data == [[[0.5, 40]], [[1, 50]], [[0.5, 40]], [[1, 60]]]
    colours = [line.get_color() for line in curves]
    assert colours[0] == colours[1] != colours[2] == colours[3]


def test_a_run_without_lines_has_curves_without_points():
    assert len(plots.learning_curves([], "title").axes) == 2


def test_the_matrix_shows_each_count(evaluation):
    ax = plots.confusion_matrix(evaluation, NAMES, "title").axes[0]
    shown = {text.get_position(): int(text.get_text()) for text in ax.texts}
    for (row, column), count in np.ndenumerate(evaluation.confusion(3)):
        assert shown.get((column, row), 0) == count
    assert [label.get_text() for label in ax.get_yticklabels()] == list(NAMES)


def test_a_matrix_of_many_classes_leaves_out_numbers_and_names(evaluation):
    names = [str(i) for i in range(100)]
    ax = plots.confusion_matrix(evaluation, names, "title").axes[0]
    assert not ax.texts
    assert "99" not in [label.get_text() for label in ax.get_yticklabels()]


@pytest.mark.parametrize("channels", [1, 3])
def test_the_worst_images_come_first_with_their_labels(evaluation, channels):
    read = []

    def image(index):
        read.append(index)
        return np.full((4, 6, channels), index, np.uint8)

    figure = plots.worst_images(evaluation, NAMES, image, "title", count=5)
    assert read == [39, 38, 37, 36, 35]
    assert figure.axes[0].get_title() == "cat\ncat, 50 %"
    assert figure.axes[3].get_title() == "cat\ndog, 50 %"  # Image 36 is wrong.


LINES = [
    {"split": "train", "epoch": 0.5, "loss": 2.0, "accuracy": 0.4},
    {"split": "test", "epoch": 1.0, "loss": 1.5, "accuracy": 0.5},
]


@pytest.mark.parametrize(
    "names",
    [
        ("$", "$$", "a$b$c"),
        (r"$\foo$", "$x_{$", r"\$"),
        ("_", "__x", "\\"),
        ("%", "{}", "<b>&amp;"),
        ("[red]", "[/]", ":cat:"),
        ("\udcff", "a\ud800b", "caf\udce9"),
        ("\x1b[31m", "a\nb\tc\r", "\0\u202e\ufffe"),
        ("", " ", "x" * 255),
        ("猫", "犬", "e\u0301"),
    ],
)
def test_names_are_drawn_as_they_are(evaluation, names):
    def black(index):
        return np.zeros((4, 6, 3), np.uint8)

    figures = [
        plots.learning_curves(LINES, names[0]),
        plots.comparison(dict.fromkeys(names, LINES)),
        plots.confusion_matrix(evaluation, names, names[1]),
        plots.worst_images(evaluation, names, black, names[2], count=3),
    ]
    for figure in figures:
        plots.save(figure, file := io.BytesIO(), dpi=20, bbox_inches="tight")
        assert min(Image.open(file).size) > 50
    shown = list(map(short_name, names))
    assert all(name.isprintable() and len(name) <= 40 for name in shown)
    legend = figures[1].axes[1].get_legend()
    assert legend is not None
    labels = [text.get_text() for text in legend.get_texts()]
    assert labels == [f"{name}: 50.00 %" for name in shown]
    matrix = figures[2].axes[0]
    cut = [short_name(name, 18) for name in names]
    assert [label.get_text() for label in matrix.get_yticklabels()] == cut
    assert figures[3].axes[0].get_title().startswith(f"{shown[0]}\n{shown[0]}, ")


def test_a_name_looks_the_same_as_without_its_dollars():
    def pixels(name):
        plots.save(plots.learning_curves(LINES, name), file := io.BytesIO(), dpi=40)
        return np.asarray(Image.open(file))

    # As mathematics, both would be an italic x.
    assert not np.array_equal(pixels("$x$"), pixels("$ x $"))


def test_what_is_unprintable_is_escaped_and_long_names_keep_both_ends():
    assert short_name("a\nb\x1b\udcff") == r"a\nb\x1b\udcff"
    assert short_name("a" * 40) == "a" * 40
    assert short_name("a" * 30 + "b" * 30) == "a" * 19 + "…" + "b" * 20
