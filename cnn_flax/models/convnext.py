"""ConvNeXt: a ResNet brought up to date, step by step.

Liu, Mao, Wu, Feichtenhofer, Darrell and Xie 2022, "A ConvNet for the 2020s",
https://arxiv.org/abs/2201.03545, figure 4 and section 3, as in torchvision, whose
kernels begin as the authors': a normal of 0.02, cut at two standard deviations.

Stochastic depth of 0.1 to 0.5 is on with `train=True`, as in the paper's table 5. It
needs `rngs={"dropout": key}`; `drop_path_rate=0` turns it off.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.typing import Dtype

from cnn_flax.layers import Conv, DropPath
from cnn_flax.layers.arguments import as_images, check_rate
from cnn_flax.layers.configure import configure
from cnn_flax.layers.global_pool import Pooling, global_pool
from cnn_flax.layers.head import linear_head
from cnn_flax.layers.module import Module
from cnn_flax.registry import register

__all__ = ["ConvNeXt", "ConvNeXtBlock"]

_PAPER = (
    "Liu, Mao, Wu, Feichtenhofer, Darrell and Xie 2022, A ConvNet for the 2020s, "
    "https://arxiv.org/abs/2201.03545"
)

_init = nn.initializers.truncated_normal(0.02)


class ConvNeXtBlock(Module):
    """Depthwise 7x7, norm, a wide 1x1 and a narrow one; added to the input.

    The paper's figure 4, with LayerScale: Touvron et al. 2021, "Going deeper with image
    transformers", https://arxiv.org/abs/2103.17239.

    Attributes:
      layer_scale: value that each channel's factor on the branch begins with.
      expand_ratio: channels inside, as a multiple of the input's.
      drop_path: constructor of the noise on the branch.
      conv: constructor of the convolution, configured for the network.
      dense: constructor of the 1x1s, configured for the network.
      norm: constructor of the norm, configured for the network.
    """

    layer_scale: float = 1e-6
    expand_ratio: int = 4
    drop_path: Callable[..., nn.Module] = partial(DropPath, 0.0)
    conv: Callable[..., Any] = Conv
    dense: Callable[..., Any] = nn.Dense
    norm: Callable[..., Any] = partial(nn.LayerNorm, 1e-6)

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """`[N, H, W, C] -> [N, H, W, C]`."""
        width = x.shape[-1]
        depthwise = self.conv(
            width, (7, 7), padding=3, feature_group_count=width, name="depthwise"
        )
        y = self.norm(name="norm")(depthwise(x))
        y = self.dense(self.expand_ratio * width, name="expand")(y)
        y = self.dense(width, name="project")(nn.gelu(y, approximate=False))
        init = nn.initializers.constant(self.layer_scale)
        param_dtype = jnp.promote_types(jnp.float32, x.dtype)
        scale = self.param("layer_scale", init, (width,), param_dtype)
        y = y * scale.astype(y.dtype)[None, None, None]
        return x + self.drop_path(name="drop_path")(y, deterministic=not train)


class ConvNeXt(Module):
    """A 4x4 with stride 4, four stages with a norm and a 2x2 between them, and a head.

    Intermediates: `stem`, `stage1` to `stage4`, `pre_logits` (after the last norm).

    Attributes:
      stage_features: number of channels of each stage.
      stage_sizes: number of blocks per stage.
      layer_scale: value that each channel's factor on a branch begins with.
      num_classes: outputs of the head; 0 leaves it out and returns the normalised
        pooled features.
      global_pool: pooling of the last map, one of `avg`, `max`, `avgmax` and `gem`.
      drop_path_rate: probability of dropping a block's branch, in [0, 1); it grows
        linearly from 0 at the first block to this at the last.
      bn_axis_name: mapped axis that the batch is split over, under `jax.pmap`; named as
        in nets with BatchNorm.
      dtype: dtype of the computation. Parameters, pooling, its norm and head are
        float32, or `dtype` where that is wider.
    """

    stage_features: Sequence[int] = (96, 192, 384, 768)
    stage_sizes: Sequence[int] = (3, 3, 9, 3)
    layer_scale: float = 1e-6
    num_classes: int = 1000
    global_pool: Pooling = "avg"
    drop_path_rate: float = 0.1
    bn_axis_name: str | None = None
    dtype: Dtype = jnp.float32

    def __post_init__(self):
        super().__post_init__()
        check_rate("drop_path_rate", self.drop_path_rate)
        if len(self.stage_sizes) != len(self.stage_features):
            raise ValueError(
                f"stage_sizes has {len(self.stage_sizes)} stages, and stage_features "
                f"{len(self.stage_features)}."
            )

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        """Float `[N, H, W, C] -> [N, num_classes]`, or `[N, features]` without a head.

        Stages 1 to 4 are 4, 8, 16 and 32 times smaller than the images, rounded down.

        Raises:
          ValueError: if `images` is not of rank 4, or smaller than 32 px.
          TypeError: if `images` are not floats.
        """
        x = as_images(images, self.dtype, min_size=2 ** (1 + len(self.stage_sizes)))
        conv = configure(Conv, self.dtype, use_bias=True, kernel_init=_init)
        dense = configure(nn.Dense, self.dtype, kernel_init=_init)
        norm = configure(nn.LayerNorm, self.dtype, epsilon=1e-6)

        # Stem.
        width = self.stage_features[0]
        x = conv(width, (4, 4), strides=4, padding=0, name="stem_conv")(x)
        x = norm(name="stem_norm")(x)
        self.sow("intermediates", "stem", x)

        # Stages.
        block_index, blocks = 0, sum(self.stage_sizes)
        for i, (width, size) in enumerate(
            zip(self.stage_features, self.stage_sizes, strict=True), 1
        ):
            if i > 1:
                x = norm(name=f"downsample{i}_norm")(x)
                downsample = conv(
                    width, (2, 2), strides=2, padding=0, name=f"downsample{i}_conv"
                )
                x = downsample(x)
            for j in range(size):
                drop_path_rate = self.drop_path_rate * block_index / max(1, blocks - 1)
                x = ConvNeXtBlock(
                    self.layer_scale,
                    drop_path=partial(DropPath, drop_path_rate, self.bn_axis_name),
                    conv=conv,
                    dense=dense,
                    norm=norm,
                    name=f"stage{i}_block{j + 1}",
                )(x, train=train)
                block_index += 1
            self.sow("intermediates", f"stage{i}", x)

        # Head.
        wide = jnp.promote_types(jnp.float32, self.dtype)
        norm = configure(nn.LayerNorm, wide, epsilon=1e-6)
        x = norm(name="norm")(global_pool(self.global_pool)(x))
        self.sow("intermediates", "pre_logits", x)
        if self.num_classes == 0:
            return x
        return linear_head(self.num_classes, self.dtype, _init)(x)


@register(paper=_PAPER)
def convnext_tiny(**fields: Any) -> ConvNeXt:
    """ConvNeXt-T: 28,589,128 parameters, trained at 224 px."""
    return ConvNeXt(**fields)


@register(paper=_PAPER)
def convnext_small(**fields: Any) -> ConvNeXt:
    """ConvNeXt-S: 50,223,688 parameters, trained at 224 px."""
    scaled = {"stage_sizes": (3, 3, 27, 3), "drop_path_rate": 0.4}
    return ConvNeXt(**{**scaled, **fields})


@register(paper=_PAPER)
def convnext_base(**fields: Any) -> ConvNeXt:
    """ConvNeXt-B: 88,591,464 parameters, trained at 224 px."""
    scaled = {
        "stage_features": (128, 256, 512, 1024),
        "stage_sizes": (3, 3, 27, 3),
        "drop_path_rate": 0.5,
    }
    return ConvNeXt(**{**scaled, **fields})


@register(paper=_PAPER)
def convnext_large(**fields: Any) -> ConvNeXt:
    """ConvNeXt-L: 197,767,336 parameters, trained at 224 px."""
    scaled = {
        "stage_features": (192, 384, 768, 1536),
        "stage_sizes": (3, 3, 27, 3),
        "drop_path_rate": 0.5,
    }
    return ConvNeXt(**{**scaled, **fields})
