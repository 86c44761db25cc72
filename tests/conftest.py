"""Every test runs on the CPU, with implicit rank promotion an error."""

import gc
import os

os.environ["JAX_PLATFORMS"] = "cpu"
# Programs here run once or for a few steps: optimising them would take longer.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
# Tests change functions that steps are made from, which the cache of steps cannot see.
os.environ["CNN_FLAX_STEP_CACHE"] = "0"

import jax
import pytest
from jax.experimental.compilation_cache import compilation_cache

jax.config.update("jax_numpy_rank_promotion", "raise")
# Tracing makes many objects that live on: fewer searches for those that do not.
gc.set_threshold(50_000)


@pytest.fixture(autouse=True, scope="module")
def programs_are_forgotten():
    """Frees the programs that a file's tests compiled, which add up to gigabytes."""
    yield
    jax.clear_caches()


@pytest.fixture(scope="session")
def programs(tmp_path_factory):
    """A compilation cache, so that tests share compiled programs."""
    folder = tmp_path_factory.mktemp("programs")
    options = {
        "jax_compilation_cache_dir": str(folder),
        "jax_persistent_cache_min_compile_time_secs": 0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }
    previous = {name: getattr(jax.config, name) for name in options}
    for name, value in options.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()
    yield folder
    for name, value in previous.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


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
