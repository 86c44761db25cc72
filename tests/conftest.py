"""Every test runs on the CPU, with implicit rank promotion an error."""

import os

os.environ["JAX_PLATFORMS"] = "cpu"
# Programs here run once or for a few steps: optimising them would take longer.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")

import jax
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture(autouse=True, scope="module")
def programs_are_forgotten():
    """Frees the programs that a file's tests compiled, which add up to gigabytes."""
    yield
    jax.clear_caches()


@pytest.fixture
def optimized():
    """Optimises slow programs: float64 convolutions then take a tenth of the time."""
    name = "jax_disable_most_optimizations"
    before = jax.config.read(name)
    jax.config.update(name, False)
    yield
    jax.config.update(name, before)


@pytest.fixture
def float64():
    """Enables float64 in the test."""
    with jax.enable_x64(True):
        yield
