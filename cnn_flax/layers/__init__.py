"""Layers and operators shared by several architectures."""

from cnn_flax.layers.batch_norm import BatchNorm
from cnn_flax.layers.conv import Conv
from cnn_flax.layers.conv_block import ConvBlock
from cnn_flax.layers.deform_conv import DeformConv, deform_conv2d
from cnn_flax.layers.drop_path import DropPath
from cnn_flax.layers.global_pool import GeM
from cnn_flax.layers.grid_sample import grid_sample
from cnn_flax.layers.local_response_norm import local_response_norm
from cnn_flax.layers.pooling import (
    adaptive_avg_pool,
    avg_pool,
    global_avg_pool,
    max_pool,
)
from cnn_flax.layers.squeeze_excite import SqueezeExcite

__all__ = [
    "BatchNorm",
    "Conv",
    "ConvBlock",
    "DeformConv",
    "DropPath",
    "GeM",
    "SqueezeExcite",
    "adaptive_avg_pool",
    "avg_pool",
    "deform_conv2d",
    "global_avg_pool",
    "grid_sample",
    "local_response_norm",
    "max_pool",
]
