"""A stand-in for images that are missing, for dry runs."""

import numpy as np

import cnn_flax
from train.config import Config
from train.data.decode import DecodeError, TargetSide
from train.data.source import Source
from train.errors import UserError

__all__ = ["stand_in"]


def stand_in(config: Config, count: int = 0) -> Source:
    """A source with the config's classes, but no readable images.

    Args:
      config: the run's config.
      count: number of images; 0 for one batch.

    Raises:
      UserError: if the model does not exist, or does not have the fields.
    """
    count = count or config.input.batch_size
    network = config.network
    try:
        model = cnn_flax.create_model(network.model, **network.model_fields)
    except (TypeError, ValueError) as error:
        raise UserError(str(error)) from error
    classes = tuple(str(k) for k in range(getattr(model, "num_classes", 1000)))

    def example(index: int, target_side: TargetSide):
        raise DecodeError(f"image {index}", "it is a stand-in")

    return Source(
        config.input.data,
        classes,
        count,
        example=example,
        name=str,
        find_labels=lambda: np.zeros(count, np.int32),
        channels=len(config.input.mean),
        native_size=None,
    )
