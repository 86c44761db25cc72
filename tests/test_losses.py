import json

import jax.numpy as jnp
import numpy as np
import pytest

from cnn_flax import losses
from tests.figures import REFERENCE

FIGURES = json.loads((REFERENCE / "ops" / "losses.json").read_text())
LOGITS = jnp.array(FIGURES["student_logits"])
LABELS = jnp.array(FIGURES["labels"])


@pytest.mark.parametrize(
    ("smoothing", "figure"),
    [(0.0, "cross_entropy"), (0.1, "cross_entropy_label_smoothing_0.1")],
)
def test_cross_entropy_matches_the_reference(smoothing, figure):
    loss = losses.cross_entropy(LOGITS, LABELS, smoothing)
    np.testing.assert_allclose(loss, FIGURES[figure], rtol=1e-6)


def test_soft_labels_of_one_class_are_hard_labels():
    soft = jnp.eye(10)[LABELS]
    for smoothing in (0.0, 0.1):
        np.testing.assert_allclose(
            losses.cross_entropy(LOGITS, soft, smoothing),
            losses.cross_entropy(LOGITS, LABELS, smoothing),
            rtol=1e-6,
        )


def test_cross_entropy_by_hand():
    # -(1/4 log 1/2 + 3/4 log 1/2) = log 2.
    loss = losses.cross_entropy(jnp.zeros((1, 2)), jnp.array([[0.25, 0.75]]))
    np.testing.assert_allclose(loss, np.log(2), rtol=1e-6)


def test_bfloat16_logits_give_a_float32_loss():
    loss = losses.cross_entropy(LOGITS.astype(jnp.bfloat16), LABELS)
    assert loss.dtype == jnp.float32


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match=r"\[N\] or \[N, K\].*\(5,\) for .*\(6, 10\)"):
        losses.cross_entropy(LOGITS, LABELS[:5])
    with pytest.raises(ValueError, match=r"in \[0, 1\], got 1.5"):
        losses.cross_entropy(LOGITS, LABELS, 1.5)
