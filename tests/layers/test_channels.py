import numpy as np
import pytest

from cnn_flax.layers.channels import round_channels


@pytest.mark.parametrize(
    ("channels", "rounded"),
    [(1, 8), (8.8, 8), (11, 16), (16 * 1.1, 16), (24 * 1.4, 32), (80 * 1.1, 88)],
)
def test_channels_are_rounded_to_multiples_of_8(channels, rounded):
    assert round_channels(channels) == rounded


def test_channels_lose_no_more_than_a_tenth():
    for channels in np.linspace(8, 400, 500):
        assert round_channels(channels) % 8 == 0
        assert round_channels(channels) >= 0.9 * channels
