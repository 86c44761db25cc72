import io

import jax
import pytest
from jax.experimental.compilation_cache import compilation_cache
from rich.console import Console

from train.config import Augment, Config, Input, Network, Optimization


@pytest.fixture(scope="session")
def tiny():
    """A run of a second or two: two blocks on the digits, 14 steps per epoch."""
    return Config(
        input=Input(
            data="digits", image_size=8, batch_size=100, mean=(0.3,), std=(0.4,)
        ),
        network=Network(
            "resnet18",
            {
                "stage_sizes": (1, 1),
                "width": 4,
                "small_inputs": True,
                "dropout_rate": 0.1,
                "drop_path_rate": 0.1,
            },
        ),
        augment=Augment(flip=0.5, crop_padding=1),
        optimization=Optimization(warmup_epochs=1),
        epochs=3,
        log_every=5,
    )


@pytest.fixture(scope="session")
def programs(tmp_path_factory):
    """A folder for JAX's compilation cache, so that runs of one config share it."""
    folder = tmp_path_factory.mktemp("programs")
    options = {
        "jax_compilation_cache_dir": str(folder),
        "jax_persistent_cache_min_compile_time_secs": 0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }
    before = {name: getattr(jax.config, name) for name in options}
    for name, value in options.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()
    yield folder
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


@pytest.fixture
def quiet():
    """A console that writes into memory."""
    return Console(file=io.StringIO(), width=200)
