"""Every test runs on the CPU, with implicit rank promotion an error."""

import os

os.environ["JAX_PLATFORMS"] = "cpu"

import jax
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture
def float64():
    """Float64 for what runs in the test."""
    with jax.enable_x64(True):
        yield
