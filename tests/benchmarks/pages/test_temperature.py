import jax
import numpy as np
import pytest

from benchmarks.pages import temperature
from benchmarks.pages.folders import DOCS

pytestmark = pytest.mark.slow

PAGE = DOCS / "temperature.md"
COMMAND = "python -m benchmarks.pages.temperature"


@pytest.fixture(scope="module")
def logits():
    return temperature.teacher_logits()


def test_the_page_is_what_the_command_writes(logits):
    written = temperature.page(logits)
    assert PAGE.read_text() == written, f"Write it again: {COMMAND}"


def test_the_teacher_knows_what_is_on_the_photographs(logits):
    found = {name: int(row.argmax()) for name, row in logits.items()}
    assert found == {"cat": 282, "coffee": 967, "palace": 698}


def test_a_soft_label_is_the_softmax_of_the_divided_logits(logits):
    for t in (0.5, 1, 4):
        label = temperature.soft_label(logits["coffee"], t)
        expected = jax.nn.softmax(logits["coffee"] / t)
        np.testing.assert_allclose(label, expected, rtol=1e-4)


def test_hot_gradients_are_those_of_the_centred_logits_differences(logits):
    row = logits["cat"]
    expected = np.linalg.norm(row - row.mean()) / row.size
    # The first order in 1 / T, in float32.
    assert temperature.gradient_norm(row, 300) == pytest.approx(expected, rel=0.02)


def test_the_picture_has_one_row_per_photograph(logits):
    labels, _ = temperature.picture(logits).subfigs
    assert len(labels.axes) == 2 * len(logits)
    names = [text.get_text() for text in labels.axes[3].get_yticklabels()]
    assert names[:2] == ["espresso", "cup"]
    assert names[-1] == "the 994 others together"
