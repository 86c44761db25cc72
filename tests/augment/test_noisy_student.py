import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from cnn_flax.augment import (
    OPERATIONS,
    draw_noisy_student_augment,
    noisy_student_augment,
)

KEY, N = jax.random.key(0), 6000

# By hand from EfficientNet's code, where magnitudes are in units of 10.
STRENGTHS = {
    6: {
        "rotate": 18,
        "posterize": 2,
        "solarize": 153 / 255,
        "color": 0.18,
        "contrast": 0.18,
        "brightness": 0.18,
        "sharpness": 0.18,
        "shear_x": 0.18,
        "shear_y": 0.18,
        "translate_x": 60,
        "translate_y": 60,
        "cutout": 24,
        "solarize_add": 66 / 255,
    },
    27: {
        "rotate": 81,
        "posterize": 8,
        "solarize": 691 / 255,
        "color": 3.96,
        "contrast": 3.96,
        "brightness": 3.96,
        "sharpness": 3.96,
        "shear_x": 0.81,
        "shear_y": 0.81,
        "translate_x": 270,
        "translate_y": 270,
        "cutout": 108,
        "solarize_add": 297 / 255,
    },
}


@pytest.mark.slow
@pytest.mark.parametrize("magnitude", STRENGTHS)
def test_sixteen_operations_are_drawn_uniformly_with_their_strengths(magnitude):
    draw = draw_noisy_student_augment(KEY, N, magnitude=magnitude)
    operation, strength = np.asarray(draw["operation"]), np.asarray(draw["strength"])
    assert operation.shape == (N, 2)
    counts = np.bincount(operation.ravel(), minlength=len(OPERATIONS))
    assert counts[0] == 0 and stats.chisquare(counts[1:]).pvalue > 1e-3
    for name, expected in STRENGTHS[magnitude].items():
        found = strength[operation == OPERATIONS.index(name)]
        np.testing.assert_allclose(np.abs(found), expected, rtol=1e-5)
        negative = (found < 0).mean()
        is_signed = name.startswith(("rotate", "shear", "translate"))
        assert abs(negative - 0.5) < 0.1 if is_signed else negative == 0
    place = np.asarray(draw["place"])
    assert stats.kstest(place.ravel(), "uniform").pvalue > 1e-3


@pytest.mark.slow
def test_images_change_and_stay_in_range():
    images = jax.random.uniform(KEY, (8, 6, 5, 3))
    changed = jax.jit(noisy_student_augment)(KEY, images)
    assert (changed != images).any(axis=(1, 2, 3)).sum() > 4
    assert (changed >= 0).all() and (changed <= 1).all()


def test_bad_arguments_are_refused():
    images = jnp.zeros((2, 4, 4, 3))
    with pytest.raises(ValueError, match="num_ops must be at least 1, got 0"):
        noisy_student_augment(KEY, images, num_ops=0)
    with pytest.raises(ValueError, match="magnitude must be at least 0, got -1"):
        noisy_student_augment(KEY, images, magnitude=-1)
