"""Untrained runs for tests that need a teacher."""

import jax.numpy as jnp

from tests.support.small_models import random_variables
from train.data.select import training_images
from train.learn.step import TrainState
from train.run.checkpoint import Checkpoints
from train.run.record import build_model, describe
from train.run.run_folder import write_record


def untrained_run(folder, config):
    """Writes a run whose checkpoint has random weights and batch statistics."""
    record = describe(config, "", training_images(config))
    size, channels = record["input"]["image_size"], record["input"]["channels"]
    variables = random_variables(build_model(record), 1, size, size, channels)
    step = jnp.zeros((), jnp.int32)
    write_record(folder, record)
    with Checkpoints(folder) as checkpoints:
        checkpoints.save(0, TrainState(step, **variables, opt_state=step), {})
    return folder
