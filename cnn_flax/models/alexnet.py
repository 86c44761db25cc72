"""AlexNet: five convolutions, three dense layers.

Krizhevsky, Sutskever and Hinton 2012, "ImageNet classification with deep convolutional
neural networks",
https://papers.nips.cc/paper/4824-imagenet-classification-with-deep-convolutional-neural-networks,
and the author's own sequel, Krizhevsky 2014, "One weird trick for parallelizing
convolutional neural networks", https://arxiv.org/abs/1404.5997.

- `alexnet` is torchvision's: one tower with the sequel's widths, no normalisation, and
  dropout on the inputs of the first two dense layers.
- `alexnet_lrn` is the net of 2012: two groups in the second, fourth and fifth
  convolution, where its two GPUs did not exchange activations, local response
  normalisation after the first two, and dropout on the outputs of the first two dense
  layers.

Differences from the papers, in both: the last map is average-pooled to 6 x 6 px if it
has another size, as in torchvision, so that any image size from 63 px (64 px in
`alexnet_lrn`) works. Kernels are drawn as in He et al. 2015 and biases begin at 0; the
paper draws all kernels from a normal of 0.01 and begins some biases at 1.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.typing import Dtype
from jax import lax

from cnn_flax.layers import (
    Conv,
    ConvBlock,
    adaptive_avg_pool,
    local_response_norm,
    max_pool,
)
from cnn_flax.layers.arguments import as_images, check_rate
from cnn_flax.layers.configure import configure
from cnn_flax.layers.head import linear_head
from cnn_flax.layers.module import Module
from cnn_flax.registry import register

__all__ = ["AlexNet"]

_PAPER = (
    "Krizhevsky 2014, One weird trick for parallelizing convolutional neural networks, "
    "https://arxiv.org/abs/1404.5997"
)
_PAPER_2012 = (
    "Krizhevsky, Sutskever and Hinton 2012, ImageNet classification with deep "
    "convolutional neural networks, https://papers.nips.cc/paper/"
    "4824-imagenet-classification-with-deep-convolutional-neural-networks"
)


class AlexNet(Module):
    """Five convolutions with overlapping max pooling, then three dense layers.

    Intermediates: `conv1`, `conv2` and `conv5` (after the ReLU), `pool1`, `pool2` and
    `pool5`, `pre_logits`.

    Attributes:
      features: channels of the five convolutions.
      hidden_features: outputs of the first two dense layers.
      num_classes: outputs of the head; 0 leaves it out and returns its input.
      original: whether it is the net of 2012: two groups in the second, fourth and
        fifth convolution, local response normalisation, and dropout after the first
        two dense layers instead of before them.
      dropout_rate: probability of dropping an input of a dense layer, in [0, 1).
      dtype: dtype of the computation. Parameters, average pooling and head are
        float32, or `dtype` where that is wider.
    """

    pyramid = ("conv1", "conv2", "conv5")  # Of a backbone.

    features: Sequence[int] = (64, 192, 384, 256, 256)
    hidden_features: int = 4096
    num_classes: int = 1000
    original: bool = False
    dropout_rate: float = 0.5
    dtype: Dtype = jnp.float32

    def __post_init__(self):
        super().__post_init__()
        if len(self.features) != 5:
            raise ValueError(
                f"features must be of five convolutions, got {self.features}."
            )
        check_rate("dropout_rate", self.dropout_rate)

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        """Float `[N, H, W, C] -> [N, num_classes]`, or `[N, hidden_features]`.

        At 224 px the maps are 55, 27 (`pool1`), 13 (`pool2`) and 6 px (`pool5`) wide.

        Raises:
          ValueError: if `images` is not of rank 4, or smaller than 63 px (64 px in the
            net of 2012).
          TypeError: if `images` are not floats.
        """
        x = as_images(images, self.dtype, min_size=64 if self.original else 63)
        wide = jnp.promote_types(jnp.float32, self.dtype)
        conv_block = partial(ConvBlock, conv=configure(Conv, self.dtype), norm=None)
        dense = partial(
            configure(nn.Dense, self.dtype),
            self.hidden_features,
            kernel_init=nn.initializers.he_normal(),
        )
        dropout = partial(nn.Dropout, self.dropout_rate, deterministic=not train)
        groups = 2 if self.original else 1

        # Convolutions. The map of 55 px in the paper's figure 2 needs 3 px more than
        # 224: the paper's program let the last windows extend over the border.
        padding = [(0, 3), (0, 3)] if self.original else 2
        x = conv_block(self.features[0], 11, 4, padding, name="layer1")(x)
        self.sow("intermediates", "conv1", x)
        if self.original:
            x = local_response_norm(x)
        x = max_pool(x, 3, 2)
        self.sow("intermediates", "pool1", x)
        x = conv_block(self.features[1], 5, groups=groups, name="layer2")(x)
        self.sow("intermediates", "conv2", x)
        if self.original:
            x = local_response_norm(x)
        x = max_pool(x, 3, 2)
        self.sow("intermediates", "pool2", x)
        x = conv_block(self.features[2], 3, name="layer3")(x)
        x = conv_block(self.features[3], 3, groups=groups, name="layer4")(x)
        x = conv_block(self.features[4], 3, groups=groups, name="layer5")(x)
        self.sow("intermediates", "conv5", x)
        x = max_pool(x, 3, 2)
        self.sow("intermediates", "pool5", x)

        # Dense layers.
        x = adaptive_avg_pool(x, (6, 6))
        x = lax.collapse(x, 1)
        if not self.original:
            x = dropout(name="dropout5")(x)
        x = nn.relu(dense(name="layer6")(x))
        x = dropout(name="dropout6")(x)
        x = nn.relu(dense(name="layer7")(x)).astype(wide)
        self.sow("intermediates", "pre_logits", x)

        # Head.
        if self.num_classes == 0:
            return x
        if self.original:
            x = dropout(name="dropout7")(x)
        return linear_head(self.num_classes, self.dtype)(x)


@register(paper=_PAPER)
def alexnet(**fields: Any) -> AlexNet:
    """Torchvision's AlexNet: 61,100,840 parameters, trained at 224 px."""
    return AlexNet(**fields)


@register(paper=_PAPER_2012)
def alexnet_lrn(**fields: Any) -> AlexNet:
    """The AlexNet of 2012: 60,965,224 parameters, trained at 224 px."""
    return AlexNet(**{"features": (96, 256, 384, 384, 256), "original": True, **fields})
