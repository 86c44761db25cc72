"""VGG: stacks of 3x3 convolutions.

Simonyan and Zisserman 2014, "Very deep convolutional networks for large-scale image
recognition", https://arxiv.org/abs/1409.1556, configurations A, B, D and E; `_bn` has
BatchNorm after each convolution, which the paper predates.

The last three layers are convolutions, 7x7, 1x1 and 1x1, as in the paper's section 3.2.
By default they see the last map average-pooled to 7 x 7 px, which is torchvision's net
at any size from 32 px; with `dense_evaluation` they slide over the map of a larger
image with the same weights, which is how the paper tests.

Kernels are initialised as in torchvision: in the stages as He et al. 2015, in the last
three layers from a normal of 0.01. The paper draws all kernels from the latter, and
initialises the deep nets from a shallow one.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.typing import Dtype

from cnn_flax.layers import (
    Conv,
    ConvBlock,
    adaptive_avg_pool,
    global_avg_pool,
    max_pool,
)
from cnn_flax.layers.arguments import as_images, check_rate
from cnn_flax.layers.configure import configure, configure_norm
from cnn_flax.layers.module import Module
from cnn_flax.registry import register

__all__ = ["STAGE_SIZES", "VGG"]

_PAPER = (
    "Simonyan and Zisserman 2014, Very deep convolutional networks for large-scale "
    "image recognition, https://arxiv.org/abs/1409.1556"
)

# Convolutions per stage by the net's depth: the paper's table 1, columns A, B, D and E.
STAGE_SIZES = {
    11: (1, 1, 2, 2, 2),
    13: (2, 2, 2, 2, 2),
    16: (2, 2, 3, 3, 3),
    19: (2, 2, 4, 4, 4),
}


class VGG(Module):
    """Stages of 3x3 convolutions, each followed by max pooling; then the classifier.

    Intermediates: `conv1_1` and so on (stage, convolution; after the ReLU), `stage1` to
    `stage5` (after the pooling), `pre_logits`.

    Attributes:
      stage_sizes: number of convolutions per stage.
      batch_norm: whether a BatchNorm follows each convolution.
      width: channels of the first stage; each further stage has twice as many, up to
        eight times as many.
      hidden_features: outputs of the first two layers of the classifier.
      num_classes: outputs of the head; 0 leaves it out and returns its input.
      dense_evaluation: whether evaluation slides the classifier over the map of an
        image that is larger than 224 px, and averages the class scores. An axis of the
        map shorter than 7 px is still pooled to 7.
      dropout_rate: probability of dropping an output of a hidden layer, in [0, 1).
      bn_momentum: decay of the running statistics (torch's momentum is 1 minus this).
      bn_axis_name: mapped axis to take batch statistics over, under `jax.pmap`.
      dtype: dtype of the computation. Parameters, statistics, average pooling and head
        are float32, or `dtype` where that is wider.
    """

    stage_sizes: Sequence[int]
    batch_norm: bool = False
    width: int = 64
    hidden_features: int = 4096
    num_classes: int = 1000
    dense_evaluation: bool = False
    dropout_rate: float = 0.5
    bn_momentum: float = 0.9
    bn_axis_name: str | None = None
    dtype: Dtype = jnp.float32

    def __post_init__(self):
        super().__post_init__()
        check_rate("dropout_rate", self.dropout_rate)

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        """Float `[N, H, W, C] -> [N, num_classes]`, or `[N, hidden_features]`.

        Stage `i` is `[N, H // 2 ** i, W // 2 ** i, width * min(2 ** (i - 1), 8)]`.

        Raises:
          ValueError: if `images` is not of rank 4, or too small for the poolings: below
            32 px with five stages.
          TypeError: if `images` are not floats.
        """
        x = as_images(images, self.dtype, min_size=2 ** len(self.stage_sizes))
        wide = jnp.promote_types(jnp.float32, self.dtype)
        norm = configure_norm(self.dtype, self.bn_momentum, self.bn_axis_name)
        conv_block = partial(
            ConvBlock,
            use_bias=True,
            conv=configure(Conv, self.dtype),
            norm=norm if self.batch_norm else None,
        )
        layer = partial(
            Conv,
            padding=0,
            param_dtype=wide,
            kernel_init=nn.initializers.normal(0.01),
        )
        dropout = partial(nn.Dropout, self.dropout_rate, deterministic=not train)

        # Stages.
        for i, size in enumerate(self.stage_sizes, 1):
            features = self.width * min(2 ** (i - 1), 8)
            for j in range(1, size + 1):
                x = conv_block(features, 3, name=f"stage{i}_conv{j}")(x, train=train)
                self.sow("intermediates", f"conv{i}_{j}", x)
            x = max_pool(x, 2, 2)
            self.sow("intermediates", f"stage{i}", x)

        # Classifier.
        sliding = self.dense_evaluation and not train
        height, width = (max(7, n) if sliding else 7 for n in x.shape[1:3])
        x = adaptive_avg_pool(x, (height, width))
        x = layer(self.hidden_features, (7, 7), dtype=self.dtype, name="fc6")(x)
        x = dropout(name="dropout6")(nn.relu(x))
        x = layer(self.hidden_features, (1, 1), dtype=self.dtype, name="fc7")(x)
        # The head is linear: the logits of the mean are the mean of the logits.
        x = global_avg_pool(nn.relu(x))
        self.sow("intermediates", "pre_logits", x)
        if self.num_classes == 0:
            return x
        x = dropout(name="dropout7")(x)[:, None, None]
        x = layer(self.num_classes, (1, 1), dtype=wide, name="head")(x)
        return x.squeeze((1, 2))


@register(paper=_PAPER)
def vgg11(**fields: Any) -> VGG:
    """VGG-11, configuration A: 132,863,336 parameters, trained at 224 px."""
    return _vgg(11, False, fields)


@register(paper=_PAPER)
def vgg13(**fields: Any) -> VGG:
    """VGG-13, configuration B: 133,047,848 parameters, trained at 224 px."""
    return _vgg(13, False, fields)


@register(paper=_PAPER)
def vgg16(**fields: Any) -> VGG:
    """VGG-16, configuration D: 138,357,544 parameters, trained at 224 px."""
    return _vgg(16, False, fields)


@register(paper=_PAPER)
def vgg19(**fields: Any) -> VGG:
    """VGG-19, configuration E: 143,667,240 parameters, trained at 224 px."""
    return _vgg(19, False, fields)


@register(paper=_PAPER)
def vgg11_bn(**fields: Any) -> VGG:
    """VGG-11 with BatchNorm: 132,868,840 parameters, trained at 224 px."""
    return _vgg(11, True, fields)


@register(paper=_PAPER)
def vgg13_bn(**fields: Any) -> VGG:
    """VGG-13 with BatchNorm: 133,053,736 parameters, trained at 224 px."""
    return _vgg(13, True, fields)


@register(paper=_PAPER)
def vgg16_bn(**fields: Any) -> VGG:
    """VGG-16 with BatchNorm: 138,365,992 parameters, trained at 224 px."""
    return _vgg(16, True, fields)


@register(paper=_PAPER)
def vgg19_bn(**fields: Any) -> VGG:
    """VGG-19 with BatchNorm: 143,678,248 parameters, trained at 224 px."""
    return _vgg(19, True, fields)


def _vgg(depth, batch_norm, fields) -> VGG:
    sizes = STAGE_SIZES[depth]
    return VGG(**{"stage_sizes": sizes, "batch_norm": batch_norm, **fields})
