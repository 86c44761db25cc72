"""The pretrained weights that a run starts from."""

import logging
from typing import Any

import numpy as np
from flax import traverse_util

from cnn_flax.weights.identify import IdentifiedWeights, identify_weights
from cnn_flax.weights.pretrained import load_identified
from train.config import Network
from train.errors import UserError
from train.learn.step import TrainState

__all__ = ["load_starting_weights"]

_log = logging.getLogger("cnn_flax")


def load_starting_weights(
    network: Network, channels: int, shapes: TrainState
) -> dict[str, Any]:
    """Loads the variables that `--init` names; empty without `--init`.

    With `--init-head` the head is that of the weights. Otherwise it is zero, as in
    Dosovitskiy et al. 2021, https://arxiv.org/abs/2010.11929, section 3.2: with a
    random head, the logits of a few classes would be large before anything is learned.
    Auxiliary heads stay randomly initialized.

    Args:
      network: the model, and the source of the weights.
      channels: number of channels of the images.
      shapes: the shapes of the state that the weights are for.

    Raises:
      WeightsError: if the weights do not exist, or are of another model.
      UserError: if a shape differs from the state's.
    """
    if not network.init:
        return {}
    weights = identify_weights(network.model, network.init_source)
    _warn_of_fields(weights, network)
    _, variables = load_identified(
        weights,
        num_classes=None if network.init_head else 0,
        in_channels=channels,
        **network.model_fields,
    )
    expected, loaded = _shapes(shapes.variables), _shapes(variables)
    if not network.init_head:
        variables["params"]["head"] = {
            leaf: np.zeros(shape.shape, np.float32)
            for leaf, shape in shapes.params["head"].items()
        }
    for path, shape in loaded.items():
        if shape != expected.get(path):
            raise UserError(
                f"--init {network.init} does not fit: its {path} has the shape "
                f"{shape}, the model's {expected.get(path, 'is missing')}."
            )
    return variables


def _warn_of_fields(weights: IdentifiedWeights, network: Network) -> None:
    """Warns if published weights need fields that the run's model does not have."""
    if weights.entry is None:
        return  # A run's own fields need not be those of its successor.
    missing = [
        f"{field}={value}"
        for field, value in weights.fields.items()
        if field not in network.model_fields
    ]
    if missing:
        _log.warning(
            "--init %s: %s was trained with other fields than the run's %s has: "
            "--model-fields %s",
            *(network.init, weights.entry.source, network.model, " ".join(missing)),
        )


def _shapes(variables: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    flat: dict[str, Any] = traverse_util.flatten_dict(variables, sep="/")
    return {path: leaf.shape for path, leaf in flat.items()}
