import io

import pytest
from rich.console import Console

from train.config import Augment, Config, Input, Network, Optimization


@pytest.fixture
def tiny():
    """A run that takes a second or two: two blocks on the digits, 14 steps an epoch."""
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


@pytest.fixture
def quiet():
    """A console that writes into memory."""
    return Console(file=io.StringIO(), width=200)
