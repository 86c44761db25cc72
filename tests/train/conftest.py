import io

import pytest
from rich.console import Console

from train.config import Augment, Config, Input, Network, Optimization


@pytest.fixture(scope="session")
def tiny():
    """A run of a second or two: one block on the digits, 14 steps per epoch."""
    return Config(
        input=Input(
            data="digits", image_size=8, batch_size=100, mean=(0.3,), std=(0.4,)
        ),
        network=Network(
            "resnet18",
            {
                "stage_sizes": (1,),
                "width": 4,
                "small_inputs": True,
                "dropout_rate": 0.1,
                "drop_path_rate": 0.1,
            },
        ),
        augment=Augment(flip=0.5, crop_padding=1),
        # Without a program that most tests do not need.
        optimization=Optimization(warmup_epochs=1, precise_bn="never"),
        epochs=3,
        log_every=5,
    )


@pytest.fixture(autouse=True, scope="module")
def undrawn():
    """Leaves out the report of a run's end, which takes as long as its training."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("train.run.loop.report_run", lambda *arguments: None)
        yield


@pytest.fixture
def quiet():
    """A console that writes into memory."""
    return Console(file=io.StringIO(), width=200)
