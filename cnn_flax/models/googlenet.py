"""GoogLeNet: inception modules, which filter a map at several scales at once.

Szegedy et al. 2014, "Going deeper with convolutions", https://arxiv.org/abs/1409.4842.

- `googlenet_lrn` is the paper's net. Local response normalisation has AlexNet's
  constants, as the paper states none.
- `googlenet` is torchvision's. It differs from the paper: every convolution has a
  BatchNorm (eps 1e-3) instead of a bias and of the stem's normalisation; the branch
  that the paper calls 5x5 is 3x3; the last max pooling is 2x2; the auxiliary heads
  average over four uneven windows per axis; dropout is 0.2 instead of 0.4.

Both take any image size: max pooling leaves no pixel out (`ceil_mode`), and the
auxiliary heads pool any map to 4 x 4 px. torchvision's weights expect images normalised
with mean = std = 0.5, as `model_info` says; its `transform_input` converts images that
are normalised with ImageNet's statistics.

The auxiliary heads run only in training. Their logits are sown as intermediates, so a
training step passes `mutable=["batch_stats", "intermediates"]` and adds 0.3 of their
losses to the loss; without "intermediates" the heads learn nothing.

Kernels are initialised as in He et al. 2015, dense layers as torch's `Linear`.
"""

from collections.abc import Callable, Sequence
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
    avg_pool,
    local_response_norm,
    max_pool,
)
from cnn_flax.layers.arguments import as_images, check_rate
from cnn_flax.layers.configure import configure, configure_norm
from cnn_flax.layers.global_pool import Pooling, global_pool
from cnn_flax.layers.head import dense_init, linear_head
from cnn_flax.layers.module import Module
from cnn_flax.registry import register

__all__ = ["AuxiliaryHead", "GoogLeNet", "Inception"]

_PAPER = (
    "Szegedy, Liu, Jia, Sermanet, Reed, Anguelov, Erhan, Vanhoucke and Rabinovich "
    "2014, Going deeper with convolutions, https://arxiv.org/abs/1409.4842"
)


class Inception(Module):
    """Four parallel branches (the paper's figure 2 b).

    Attributes:
      features: channels in the order of the paper's table 1: 1x1; 3x3 reduce, 3x3; 5x5
        reduce, 5x5; pool proj.
      large_kernel: size of the third branch's kernel, in pixels: the paper's 5, or 3.
      conv_block: constructor of convolution, norm and activation.
    """

    features: Sequence[int]
    large_kernel: int = 5
    conv_block: Callable[..., nn.Module] = ConvBlock

    def __post_init__(self):
        super().__post_init__()
        if len(self.features) != 6:
            raise ValueError(f"features must be six numbers, got {self.features}.")

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """`[N, H, W, C] -> [N, H, W, sum of the four branches' last features]`."""
        block = self.conv_block
        point, reduce, medium, reduce_large, large, pool = self.features
        branch1 = block(point, 1, name="branch1")(x, train=train)
        branch2 = block(reduce, 1, name="branch2_conv1")(x, train=train)
        branch2 = block(medium, 3, name="branch2_conv2")(branch2, train=train)
        branch3 = block(reduce_large, 1, name="branch3_conv1")(x, train=train)
        branch3 = block(large, self.large_kernel, name="branch3_conv2")(
            branch3, train=train
        )
        branch4 = max_pool(x, 3, 1, padding=1)
        branch4 = block(pool, 1, name="branch4")(branch4, train=train)
        return jnp.concatenate([branch1, branch2, branch3, branch4], axis=-1)


class AuxiliaryHead(Module):
    """A small classifier on an intermediate map, which adds gradients (section 5).

    Attributes:
      num_classes: number of outputs.
      original: whether the map is averaged over 5x5 windows with stride 3 first, which
        turns the 14 x 14 px of a 224 px image into 4 x 4.
      dropout_rate: probability of dropping a hidden output, in [0, 1).
      conv_block: constructor of convolution, norm and activation.
      dtype: dtype of the computation. Parameters, pooling and logits are float32, or
        `dtype` where that is wider.
    """

    num_classes: int
    original: bool = False
    dropout_rate: float = 0.7
    conv_block: Callable[..., nn.Module] = ConvBlock
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """`[N, H, W, C] -> [N, num_classes]`."""
        wide = jnp.promote_types(jnp.float32, self.dtype)
        dense = partial(nn.Dense, param_dtype=wide, kernel_init=dense_init)
        if self.original:
            x = avg_pool(x.astype(wide), 5, 3)
        x = adaptive_avg_pool(x, (4, 4))
        x = self.conv_block(128, 1, name="conv")(x, train=train)
        x = lax.collapse(x, 1)
        x = nn.relu(dense(1024, dtype=self.dtype, name="fc1")(x))
        x = nn.Dropout(self.dropout_rate, deterministic=not train, name="dropout")(x)
        return dense(self.num_classes, dtype=wide, name="fc2")(x)


class GoogLeNet(Module):
    """A stem, nine inception modules, two auxiliary heads, pooling and a linear head.

    Intermediates: `stem` (what inception 3a receives), `stage3`, `stage4` and `stage5`
    (inception 3b, 4e and 5b, before pooling), `pre_logits`; in training also
    `aux1_logits` and `aux2_logits`, after inception 4a and 4d.

    Attributes:
      num_classes: outputs of each head; 0 leaves them out and returns the pooled
        features.
      global_pool: pooling of the last map, one of `avg`, `max`, `avgmax` and `gem`.
      original: whether it is the paper's net: biases and local response normalisation
        instead of BatchNorm, and the paper's kernels and poolings.
      aux_logits: whether there are auxiliary heads.
      dropout_rate: probability of dropping a pooled feature, in [0, 1).
      aux_dropout_rate: probability of dropping an auxiliary head's hidden output, in
        [0, 1); None: the paper's 0.7, or 0 if `dropout_rate` is 0.
      bn_momentum: decay of the running statistics (torch's momentum is 1 minus this).
      bn_axis_name: mapped axis to take batch statistics over, under `jax.pmap`.
      dtype: dtype of the computation. Parameters, statistics, average pooling and heads
        are float32, or `dtype` where that is wider.
    """

    pyramid = ("stage3", "stage4", "stage5")  # Of a backbone.

    num_classes: int = 1000
    global_pool: Pooling = "avg"
    original: bool = False
    aux_logits: bool = True
    dropout_rate: float = 0.2
    aux_dropout_rate: float | None = None
    bn_momentum: float = 0.9
    bn_axis_name: str | None = None
    dtype: Dtype = jnp.float32

    def __post_init__(self):
        super().__post_init__()
        check_rate("dropout_rate", self.dropout_rate)
        if self.aux_dropout_rate is not None:
            check_rate("aux_dropout_rate", self.aux_dropout_rate)

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        """Float `[N, H, W, C] -> [N, num_classes]`, or `[N, 1024]` without heads.

        At 224 px the maps are 28 (`stem`, `stage3`), 14 (`stage4`) and 7 px (`stage5`)
        wide.

        Raises:
          ValueError: if `images` is not of rank 4.
          TypeError: if `images` are not floats.
        """
        x = as_images(images, self.dtype)
        norm = configure_norm(
            self.dtype, self.bn_momentum, self.bn_axis_name, epsilon=1e-3
        )
        conv_block = partial(
            ConvBlock,
            conv=configure(Conv, self.dtype),
            norm=None if self.original else norm,
        )
        inception = partial(
            Inception, large_kernel=5 if self.original else 3, conv_block=conv_block
        )
        aux_dropout_rate = self.aux_dropout_rate
        if aux_dropout_rate is None:
            aux_dropout_rate = 0.7 if self.dropout_rate else 0.0
        auxiliary_head = partial(
            AuxiliaryHead,
            self.num_classes,
            self.original,
            aux_dropout_rate,
            conv_block,
            self.dtype,
        )

        # Stem.
        x = conv_block(64, 7, 2, name="conv1")(x, train=train)
        x = max_pool(x, 3, 2, ceil_mode=True)
        if self.original:
            x = local_response_norm(x)
        x = conv_block(64, 1, name="conv2")(x, train=train)
        x = conv_block(192, 3, name="conv3")(x, train=train)
        if self.original:
            x = local_response_norm(x)
        x = max_pool(x, 3, 2, ceil_mode=True)
        self.sow("intermediates", "stem", x)

        # Stages. Initialisation creates the auxiliary heads' parameters in any mode.
        heads = _HEADS if self.aux_logits and self.num_classes else {}
        for name, features in _INCEPTIONS.items():
            x = inception(features, name=f"inception{name}")(x, train=train)
            if name in heads and (train or self.is_initializing()):
                logits = auxiliary_head(name=heads[name])(x, train=train)
                self.sow("intermediates", f"{heads[name]}_logits", logits)
            if name in _STAGES:
                self.sow("intermediates", _STAGES[name], x)
            if name == "3b":
                x = max_pool(x, 3, 2, ceil_mode=True)
            elif name == "4e":
                x = max_pool(x, 3 if self.original else 2, 2, ceil_mode=True)

        # Head.
        x = global_pool(self.global_pool)(x)
        self.sow("intermediates", "pre_logits", x)
        if self.num_classes == 0:
            return x
        x = nn.Dropout(self.dropout_rate, deterministic=not train, name="dropout")(x)
        return linear_head(self.num_classes, self.dtype)(x)


# The paper's table 1, and which features are sown after which module.

_INCEPTIONS = {
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}
_STAGES = {"3b": "stage3", "4e": "stage4", "5b": "stage5"}
_HEADS = {"4a": "aux1", "4d": "aux2"}


@register(paper=_PAPER)
def googlenet(**fields: Any) -> GoogLeNet:
    """Torchvision's GoogLeNet: 6,624,904 parameters, and 6,379,984 in the heads.

    Trained at 224 px.
    """
    return GoogLeNet(**fields)


@register(paper=_PAPER)
def googlenet_lrn(**fields: Any) -> GoogLeNet:
    """The paper's GoogLeNet: 6,998,552 parameters, and 6,379,728 in the heads.

    Trained at 224 px.
    """
    return GoogLeNet(**{"original": True, "dropout_rate": 0.4, **fields})
