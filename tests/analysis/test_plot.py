import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import traverse_util

from cnn_flax import plot_receptive_field, receptive_field
from cnn_flax.layers import DeformConv


class Net(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = DeformConv(4, (3, 3), padding=1, name="deform")(nn.Conv(4, (3, 3))(x))
        self.sow("intermediates", "map", x)
        return x * x.mean((1, 2), keepdims=True)


IMAGES = np.random.default_rng(0).standard_normal((2, 24, 32, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def variables():
    shapes = jax.eval_shape(Net().init, jax.random.key(0), IMAGES)
    return traverse_util.path_aware_map(
        lambda path, leaf: jnp.full(leaf.shape, 0.0 if "offset" in path else 0.1),
        shapes,
    )


def texts(figure):
    (ax,) = figure.axes
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    return ax.get_title(), labels


def test_the_plot_shows_both_fields_and_the_taps(variables):
    figure = plot_receptive_field(
        Net(), variables, IMAGES, "map", position=(10, 20), deformable=1
    )
    title, labels = texts(figure)
    assert title == "What a position of map sees"
    assert any("receptive field, undeformed: 5 x 5 px" in label for label in labels)
    assert any(label.startswith("effective") for label in labels)
    assert any(label.startswith("9 taps") for label in labels)
    (ax,) = figure.axes
    frame = ax.patches[1]
    field = receptive_field(Net(), (24, 32), "map")
    assert frame.get_xy() == (20 - field.padding[1] - 0.5, 10 - field.padding[0] - 0.5)
    (points,) = ax.collections
    # The offsets are zero: a grid about the position.
    np.testing.assert_allclose(np.mean(points.get_offsets(), axis=0), (20, 10))


def test_the_plot_mentions_global_pooling(variables):
    title, _ = texts(plot_receptive_field(Net(), variables, IMAGES, "output"))
    assert "by global pooling, the whole image" in title


def test_the_photograph_is_the_background(variables):
    photograph = np.full((24, 32, 3), 0.25)
    figure = plot_receptive_field(
        Net(), variables, IMAGES, "map", photograph=photograph
    )
    np.testing.assert_array_equal(figure.axes[0].images[0].get_array(), photograph)


def test_grey_images_are_drawn():
    figure = plot_receptive_field(
        lambda x: nn.avg_pool(x, (3, 3)), {}, jnp.ones((1, 8, 8, 1))
    )
    assert figure.axes[0].images[0].get_array().shape == (8, 8)


def test_photograph_of_another_size_is_refused(variables):
    with pytest.raises(ValueError, match="24 x 32 pixels"):
        plot_receptive_field(
            Net(), variables, IMAGES, "map", photograph=np.ones((8, 8, 3))
        )


def test_without_matplotlib_the_extra_is_named(variables, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"\[plots\]"):
        plot_receptive_field(Net(), variables, IMAGES, "map")
