"""Blocks and operators that more than one paper uses."""

from cnn_flax.layers.conv import Conv
from cnn_flax.layers.conv_block import ConvBlock
from cnn_flax.layers.drop_path import DropPath
from cnn_flax.layers.pooling import avg_pool, global_avg_pool, max_pool

__all__ = [
    "Conv",
    "ConvBlock",
    "DropPath",
    "avg_pool",
    "global_avg_pool",
    "max_pool",
]
