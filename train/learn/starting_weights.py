"""The pretrained weights that a run starts from."""

from typing import Any

import numpy as np
from flax import traverse_util

from cnn_flax.weights import load_pretrained
from train.config import Network
from train.errors import UserError
from train.learn.step import TrainState

__all__ = ["load_starting_weights"]


def load_starting_weights(
    network: Network, channels: int, shapes: TrainState
) -> dict[str, Any]:
    """Loads the variables that `--init` names; none if it names nothing.

    With `--init-head` the head is that of the weights. Otherwise it is zero, as in
    Dosovitskiy et al. 2021, https://arxiv.org/abs/2010.11929, section 3.2: with a
    random head, the logits for a few classes would be large before anything is learned.
    Auxiliary heads stay randomly initialized.

    Args:
      network: the model, and the weights' source.
      channels: of the images.
      shapes: of the state that the weights are for.

    Raises:
      WeightsError: if the source does not exist, or is of another model.
      UserError: if a shape differs from the state's.
    """
    if not network.init:
        return {}
    source = None if network.init == "published" else network.init
    _, variables = load_pretrained(
        network.model,
        source,
        num_classes=None if network.init_head else 0,
        in_channels=channels,
        **network.model_fields,
    )
    wanted, found = _shapes(shapes.variables), _shapes(variables)
    if not network.init_head:
        variables["params"]["head"] = {
            leaf: np.zeros(shape.shape, np.float32)
            for leaf, shape in shapes.params["head"].items()
        }
    for path, shape in found.items():
        if shape != wanted.get(path):
            raise UserError(
                f"--init {network.init} does not fit: its {path} is of shape {shape}, "
                f"the model's {wanted.get(path, 'is missing')}."
            )
    return variables


def _shapes(variables: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    flat: dict[str, Any] = traverse_util.flatten_dict(variables, sep="/")
    return {path: leaf.shape for path, leaf in flat.items()}
