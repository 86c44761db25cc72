"""MobileNetV3: inverted residuals found by search, with a cheaper last stage.

Howard et al. 2019, "Searching for MobileNetV3", https://arxiv.org/abs/1905.02244,
tables 1 and 2, as in torchvision. It departs from the paper and the authors' code in:

- padding of half the kernel on every side, where the authors' code has "SAME";
- dropout of 0.2 before the head, where the paper has 0.8 (section 6.1.1, as the
  probability of keeping);
- kernels initialised as He et al. 2015 (normal, fan out), where the fan out of a
  depthwise kernel counts all channels; the dense layers from a normal of 0.01.

Stochastic depth, off by default, is timm's.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.typing import Dtype

from cnn_flax.layers import Conv, ConvBlock, DropPath, SqueezeExcite
from cnn_flax.layers.arguments import as_images, check_rate
from cnn_flax.layers.channels import round_channels
from cnn_flax.layers.configure import configure, configure_norm
from cnn_flax.layers.global_pool import Pooling, global_pool
from cnn_flax.layers.head import linear_head
from cnn_flax.layers.module import Module
from cnn_flax.registry import register

__all__ = ["Block", "InvertedResidual", "MobileNetV3"]

_PAPER = (
    "Howard, Sandler, Chu, Chen, Chen, Tan, Wang, Zhu, Pang, Vasudevan, Le and Adam "
    "2019, Searching for MobileNetV3, https://arxiv.org/abs/1905.02244"
)

_dense_init = nn.initializers.normal(0.01)


class InvertedResidual(Module):
    """Expand by 1x1, filter depthwise, weight the channels, project by a linear 1x1.

    The paper's figure 4. There is a shortcut where shapes do not change.

    Attributes:
      features: number of output channels.
      expanded: number of channels inside; equal to the input's, there is no expansion.
      kernel_size: height and width of the depthwise kernel, in pixels.
      strides: divisor of height and width, which are rounded up.
      use_se: whether to squeeze and excite, with a fourth of the channels inside.
      activation: elementwise function.
      drop_path: constructor of the noise on the branch.
      conv_block: constructor of convolution, norm and activation.
    """

    features: int
    expanded: int
    kernel_size: int = 3
    strides: int = 1
    use_se: bool = False
    activation: Callable[[jax.Array], jax.Array] = nn.hard_swish
    drop_path: Callable[..., nn.Module] = partial(DropPath, 0.0)
    conv_block: Callable[..., nn.Module] = ConvBlock

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """`[N, H, W, C] -> [N, ceil(H / strides), ceil(W / strides), features]`."""
        block = partial(self.conv_block, activation=self.activation)
        y = x
        if self.expanded != x.shape[-1]:
            y = block(self.expanded, 1, name="expand")(y, train=train)
        y = block(
            self.expanded,
            self.kernel_size,
            self.strides,
            groups=self.expanded,
            name="depthwise",
        )(y, train=train)
        if self.use_se:
            y = SqueezeExcite(
                round_channels(self.expanded // 4),
                gate=nn.hard_sigmoid,
                conv_block=self.conv_block,
                name="squeeze_excite",
            )(y)
        y = block(self.features, 1, activation=None, name="project")(y, train=train)
        if self.strides == 1 and x.shape[-1] == self.features:
            y = x + self.drop_path(name="drop_path")(y, deterministic=not train)
        return y


class Block(NamedTuple):
    """A row of table 1 or 2: its columns k, exp size, #out, SE, NL and s.

    Attributes:
      kernel_size: height and width of the depthwise kernel, in pixels.
      expanded: number of channels inside.
      features: number of output channels.
      use_se: whether it has squeeze and excitation.
      activation: "RE" for ReLU, "HS" for hard swish.
      strides: divisor of height and width.
    """

    kernel_size: int
    expanded: int
    features: int
    use_se: bool
    activation: str
    strides: int


_ACTIVATIONS = {"RE": nn.relu, "HS": nn.hard_swish}

# The rows, grouped by their output channels.
_LARGE = (
    (Block(3, 16, 16, False, "RE", 1),),
    (
        Block(3, 64, 24, False, "RE", 2),
        Block(3, 72, 24, False, "RE", 1),
    ),
    (
        Block(5, 72, 40, True, "RE", 2),
        Block(5, 120, 40, True, "RE", 1),
        Block(5, 120, 40, True, "RE", 1),
    ),
    (
        Block(3, 240, 80, False, "HS", 2),
        Block(3, 200, 80, False, "HS", 1),
        Block(3, 184, 80, False, "HS", 1),
        Block(3, 184, 80, False, "HS", 1),
    ),
    (
        Block(3, 480, 112, True, "HS", 1),
        Block(3, 672, 112, True, "HS", 1),
    ),
    (
        Block(5, 672, 160, True, "HS", 2),
        Block(5, 960, 160, True, "HS", 1),
        Block(5, 960, 160, True, "HS", 1),
    ),
)
_SMALL = (
    (Block(3, 16, 16, True, "RE", 2),),
    (
        Block(3, 72, 24, False, "RE", 2),
        Block(3, 88, 24, False, "RE", 1),
    ),
    (
        Block(5, 96, 40, True, "HS", 2),
        Block(5, 240, 40, True, "HS", 1),
        Block(5, 240, 40, True, "HS", 1),
    ),
    (
        Block(5, 120, 48, True, "HS", 1),
        Block(5, 144, 48, True, "HS", 1),
    ),
    (
        Block(5, 288, 96, True, "HS", 2),
        Block(5, 576, 96, True, "HS", 1),
        Block(5, 576, 96, True, "HS", 1),
    ),
)
_STEM = 16


class MobileNetV3(Module):
    """A 3x3 with stride 2, inverted residuals, a 1x1, pooling and two dense layers.

    Intermediates: `stem` (what stage 1 receives), `stage1` and so on, one for each
    number of channels in the paper's table; `pre_logits`.

    Attributes:
      small: whether it is the small net, table 2, instead of the large one, table 1.
      stage_sizes: number of blocks per stage: the first ones of the table's stage; the
        last one repeats where there are more. Fewer stages leave out the last ones.
      hidden_features: outputs of the first dense layer.
      width_multiplier: factor on all numbers of channels, which are rounded to
        multiples of 8.
      num_classes: outputs of the head; 0 leaves it out and returns its input.
      global_pool: pooling of the last map, one of `avg`, `max`, `avgmax` and `gem`.
      dropout_rate: probability of dropping an input of the head, in [0, 1).
      drop_path_rate: probability of dropping a block's branch, in [0, 1); it grows
        linearly from 0 at the first block, and would be reached after the last.
      bn_momentum: decay of the running statistics (torch's momentum is 1 minus this).
      bn_axis_name: mapped axis to take batch statistics over, under `jax.pmap`.
      dtype: dtype of the computation. Parameters, statistics, pooling and head are
        float32, or `dtype` where that is wider.
    """

    small: bool = False
    stage_sizes: Sequence[int] = tuple(map(len, _LARGE))
    hidden_features: int = 1280
    width_multiplier: float = 1.0
    num_classes: int = 1000
    global_pool: Pooling = "avg"
    dropout_rate: float = 0.2
    drop_path_rate: float = 0.0
    bn_momentum: float = 0.99
    bn_axis_name: str | None = None
    dtype: Dtype = jnp.float32

    def __post_init__(self):
        super().__post_init__()
        check_rate("dropout_rate", self.dropout_rate)
        check_rate("drop_path_rate", self.drop_path_rate)
        if not self.width_multiplier > 0:
            raise ValueError(
                f"width_multiplier must be positive, got {self.width_multiplier}."
            )
        if len(self.stage_sizes) > len(self._table):
            raise ValueError(
                f"stage_sizes has at most {len(self._table)} stages, got "
                f"{len(self.stage_sizes)}."
            )

    def row(self, stage: int, block: int) -> Block:
        """The row of the paper's table that a block is; both numbers are from 0."""
        rows = self._table[stage]
        return rows[block] if block < len(rows) else rows[-1]._replace(strides=1)

    @property
    def _table(self) -> tuple[tuple[Block, ...], ...]:
        return _SMALL if self.small else _LARGE

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        """Float `[N, H, W, C] -> [N, num_classes]`, or `[N, hidden_features]`.

        Raises:
          ValueError: if `images` is not of rank 4.
          TypeError: if `images` are not floats.
        """
        x = as_images(images, self.dtype)
        conv_block = partial(
            ConvBlock,
            activation=nn.hard_swish,
            conv=configure(Conv, self.dtype),
            norm=configure_norm(
                self.dtype, self.bn_momentum, self.bn_axis_name, epsilon=1e-3
            ),
        )

        # Stem.
        x = conv_block(self._width(_STEM), 3, 2, name="conv_stem")(x, train=train)
        self.sow("intermediates", "stem", x)

        # Stages.
        block_index, blocks = 0, sum(self.stage_sizes)
        for i, size in enumerate(self.stage_sizes):
            for j in range(size):
                row = self.row(i, j)
                drop_path_rate = self.drop_path_rate * block_index / blocks
                x = InvertedResidual(
                    self._width(row.features),
                    self._width(row.expanded),
                    row.kernel_size,
                    row.strides,
                    row.use_se,
                    _ACTIVATIONS[row.activation],
                    drop_path=partial(DropPath, drop_path_rate, self.bn_axis_name),
                    conv_block=conv_block,
                    name=f"stage{i + 1}_block{j + 1}",
                )(x, train=train)
                block_index += 1
            self.sow("intermediates", f"stage{i + 1}", x)

        # Head. The last 1x1 has the widest block's channels.
        x = conv_block(6 * x.shape[-1], 1, name="conv_head")(x, train=train)
        dense = configure(nn.Dense, self.dtype, kernel_init=_dense_init)
        x = global_pool(self.global_pool)(x).astype(self.dtype)
        x = dense(self._width(self.hidden_features), name="hidden")(x)
        x = nn.hard_swish(x).astype(jnp.promote_types(jnp.float32, self.dtype))
        self.sow("intermediates", "pre_logits", x)
        if self.num_classes == 0:
            return x
        x = nn.Dropout(self.dropout_rate, deterministic=not train)(x)
        return linear_head(self.num_classes, self.dtype, _dense_init)(x)

    def _width(self, channels: int) -> int:
        return round_channels(channels * self.width_multiplier)


@register(paper=_PAPER)
def mobilenet_v3_large(**fields: Any) -> MobileNetV3:
    """MobileNetV3-Large: 5,483,032 parameters, trained at 224 px."""
    return MobileNetV3(**fields)


@register(paper=_PAPER)
def mobilenet_v3_small(**fields: Any) -> MobileNetV3:
    """MobileNetV3-Small: 2,542,856 parameters, trained at 224 px."""
    sizes = tuple(map(len, _SMALL))
    small = {"small": True, "stage_sizes": sizes, "hidden_features": 1024}
    return MobileNetV3(**{**small, **fields})
