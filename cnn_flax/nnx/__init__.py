"""The models as `flax.nnx` modules; importing `cnn_flax` does not import this."""

from cnn_flax.nnx.create import create_model, from_linen, load_pretrained
from cnn_flax.nnx.module import LinenNode

__all__ = ["LinenNode", "create_model", "from_linen", "load_pretrained"]
