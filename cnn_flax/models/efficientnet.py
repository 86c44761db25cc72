"""EfficientNet: one small network, scaled in depth, width and resolution together.

Tan and Le 2019, "EfficientNet: rethinking model scaling for convolutional neural
networks", https://arxiv.org/abs/1905.11946. All nets are the paper's table 1, scaled:

- `efficientnet_b0` to `b7` are torchvision's: padding as in torch, and BatchNorm as in
  the weights' origin (`b0` to `b4` from timm: epsilon 1e-5, momentum 0.1 in torch's
  sense; `b5` to `b7` from TensorFlow: 1e-3 and 0.01).
- `tf_efficientnet_b0` to `b8` and `l2` have the authors' weights, as in timm:
  TensorFlow's "SAME" padding, which depends on the image's size, and epsilon 1e-3.
  `b8`: Xie et al. 2019, https://arxiv.org/abs/1911.09665; `l2`: Xie et al. 2019,
  https://arxiv.org/abs/1911.04252, table 7.
- `tf_efficientnet_lite0` to `lite4` are the authors' nets for small devices: no squeeze
  and excitation, ReLU6 instead of SiLU; stem, head and the depth of the first and last
  stage are not scaled.

All of them have noise with `train=True`, as in the paper: dropout of 0.2 to 0.5 before
the head, more in larger nets, and stochastic depth of up to 0.2. It needs
`rngs={"dropout": key}`; `dropout_rate=0, drop_path_rate=0` turns it off.

The paper's BatchNorm has momentum 0.99 and the authors' code epsilon 1e-3, which
`bn_momentum` and `bn_epsilon` set. The kernels are initialised as by the authors
(normal, fan out; the fan out of a depthwise kernel is its size), the head uniformly by
its number of classes.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.typing import Dtype

from cnn_flax.layers import (
    Conv,
    ConvBlock,
    DropPath,
    SqueezeExcite,
)
from cnn_flax.layers.arguments import as_images, check_rate, finite_number
from cnn_flax.layers.channels import round_channels
from cnn_flax.layers.configure import configure, configure_norm
from cnn_flax.layers.dilation import (
    check_output_stride,
    last_of_each_stride,
    stage_steps,
)
from cnn_flax.layers.global_pool import Pooling, global_pool
from cnn_flax.layers.head import linear_head
from cnn_flax.layers.module import Module, Padding
from cnn_flax.registry import register

__all__ = [
    "Coefficients",
    "EfficientNet",
    "MBConv",
    "Scaling",
    "Stage",
    "compound_scaling",
    "search_scaling",
]

_PAPER = (
    "Tan and Le 2019, EfficientNet: rethinking model scaling for convolutional neural "
    "networks, https://arxiv.org/abs/1905.11946"
)
_PAPER_B8 = (
    "Xie, Tan, Gong, Wang, Yuille and Le 2019, Adversarial examples improve image "
    "recognition, https://arxiv.org/abs/1911.09665"
)
_PAPER_L2 = (
    "Xie, Luong, Hovy and Le 2019, Self-training with noisy student improves ImageNet "
    "classification, https://arxiv.org/abs/1911.04252"
)
_RESOLUTION = 224  # Of B0, in pixels.


# Compound scaling (section 3.3).


class Coefficients(NamedTuple):
    """Factors on depth, width and resolution at phi = 1.

    The paper's are (1.2, 1.1, 1.15).
    """

    alpha: float
    beta: float
    gamma: float


class Scaling(NamedTuple):
    """How much larger than B0 a net is.

    Attributes:
      depth: factor on the numbers of blocks: `depth_multiplier`.
      width: factor on the numbers of channels: `width_multiplier`.
      resolution: height and width of the images, in pixels.
    """

    depth: float
    width: float
    resolution: int


def compound_scaling(
    phi: float, alpha: float = 1.2, beta: float = 1.1, gamma: float = 1.15
) -> Scaling:
    """The net that takes about `(alpha * beta**2 * gamma**2) ** phi` times B0's work.

    The defaults are the paper's. Its B1 to B7 are close to such nets, but chosen by
    hand: B7 is (3.1, 2.0, 600), and `phi=7` gives (3.58, 1.95, 596).

    Args:
      phi: the compound coefficient; 0 is B0.
      alpha: factor on the depth at `phi=1`.
      beta: factor on the width at `phi=1`.
      gamma: factor on the resolution at `phi=1`.

    Raises:
      ValueError: if a coefficient is not positive.
    """
    for name, value in (("alpha", alpha), ("beta", beta), ("gamma", gamma)):
        if not value > 0:
            raise ValueError(f"{name} must be positive, got {value}.")
    return Scaling(alpha**phi, beta**phi, round(_RESOLUTION * gamma**phi))


def search_scaling(
    score: Callable[[float, float, float], float],
    *,
    step: float = 0.05,
    tolerance: float = 0.1,
) -> Coefficients:
    """The best coefficients at phi = 1, by grid search (section 3.3, step 1).

    The grid holds 1, 1 + `step`, 1 + 2 `step` ... along each axis, wherever
    `alpha * beta**2 * gamma**2` is within `tolerance` of 2, which is twice B0's work.
    The paper's result, (1.2, 1.1, 1.15), gives 1.92.

    Args:
      score: what to maximise, as a function of alpha, beta and gamma: usually the
        accuracy of the trained net of `compound_scaling(1, alpha, beta, gamma)`.
      step: distance between neighbours in the grid, which has 109 points at 0.05.
      tolerance: allowed distance from 2.

    Returns:
      The coefficients with the highest score; of equal ones the first in the grid's
      order (alpha, then beta, then gamma).

    Raises:
      ValueError: if no coefficients fit, or a score is not a number.
    """
    if not step > 0:
        raise ValueError(f"step must be positive, got {step}.")
    # The largest value that a coefficient can have if the others are 1.
    values = [round(1 + i * step, 10) for i in range(int((1 + tolerance) / step) + 1)]
    grid = [
        Coefficients(alpha, beta, gamma)
        for alpha, beta, gamma in itertools.product(values, repeat=3)
        if abs(alpha * beta**2 * gamma**2 - 2) <= tolerance
    ]
    if not grid:
        raise ValueError(
            "No alpha, beta and gamma have alpha * beta**2 * gamma**2 within "
            f"{tolerance} of 2 on a grid of step {step}: take a finer grid."
        )

    def checked(coefficients: Coefficients) -> float:
        value = score(*coefficients)
        if math.isnan(value):
            raise ValueError(f"The score of {coefficients} is not a number.")
        return value

    return max(grid, key=checked)


# Blocks.


class MBConv(Module):
    """Expand by 1x1, filter depthwise, weight the channels, project by 1x1.

    Sandler et al. 2018, "MobileNetV2", https://arxiv.org/abs/1801.04381, with squeeze
    and excitation. There is a shortcut where shapes do not change.

    Attributes:
      features: number of output channels.
      kernel_size: height and width of the depthwise kernel, in pixels.
      strides: what height and width are divided by, rounded up.
      expand_ratio: channels inside, as a multiple of the input's; 1 has no expansion.
      se_ratio: squeezed channels as a share of the input's; 0 has no squeeze and
        excitation.
      activation: elementwise function.
      drop_path: constructor of the noise on the branch.
      conv_block: constructor of convolution, norm and activation.
      depthwise: the same for the depthwise convolution.
      dilation: step between the depthwise kernel's taps, in pixels.
      shortcut: whether there may be one. A block whose stride is replaced by dilation
        has none, as with its stride.
    """

    features: int
    kernel_size: int
    strides: int = 1
    expand_ratio: int = 6
    se_ratio: float = 0.25
    activation: Callable[[jax.Array], jax.Array] = nn.silu
    drop_path: Callable[..., nn.Module] = partial(DropPath, 0.0)
    conv_block: Callable[..., nn.Module] = ConvBlock
    depthwise: Callable[..., nn.Module] = ConvBlock
    dilation: int = 1
    shortcut: bool = True

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """`[N, H, W, C] -> [N, ceil(H / strides), ceil(W / strides), features]`."""
        inputs = x.shape[-1]
        act = self.activation
        y = x
        if self.expand_ratio != 1:
            width = inputs * self.expand_ratio
            y = self.conv_block(width, 1, activation=act, name="expand")(y, train=train)
        y = self.depthwise(
            y.shape[-1],
            self.kernel_size,
            self.strides,
            groups=y.shape[-1],
            activation=act,
            dilation=self.dilation,
            name="depthwise",
        )(y, train=train)
        if self.se_ratio > 0:
            y = SqueezeExcite(
                max(1, int(inputs * self.se_ratio)),
                activation=act,
                conv_block=self.conv_block,
                name="squeeze_excite",
            )(y)
        y = self.conv_block(self.features, 1, activation=None, name="project")(
            y, train=train
        )
        same_shape = self.strides == 1 and inputs == self.features
        if self.shortcut and same_shape:
            y = x + self.drop_path(name="drop_path")(y, deterministic=not train)
        return y


class Stage(NamedTuple):
    """One row of the paper's table 1, before scaling.

    Attributes:
      features: number of output channels.
      blocks: number of blocks.
      kernel_size: height and width of the depthwise kernels, in pixels.
      strides: what height and width are divided by.
      expand_ratio: channels inside a block, as a multiple of its input's.
    """

    features: int
    blocks: int
    kernel_size: int
    strides: int
    expand_ratio: int


_B0 = (
    Stage(16, 1, 3, 1, 1),
    Stage(24, 2, 3, 2, 6),
    Stage(40, 2, 5, 2, 6),
    Stage(80, 3, 3, 2, 6),
    Stage(112, 3, 5, 1, 6),
    Stage(192, 4, 5, 2, 6),
    Stage(320, 1, 3, 1, 6),
)
_STEM, _HEAD = 32, 1280


# The network.


class EfficientNet(Module):
    """A 3x3 with stride 2, stages of MBConv, a 1x1, pooling and a linear head.

    Intermediates: `stem` (what stage 1 receives), `stage1` to `stage7`, `pre_logits`.

    Attributes:
      depth_multiplier: factor on the stages' numbers of blocks, which are rounded up.
      width_multiplier: factor on all numbers of channels, which are rounded to
        multiples of 8.
      num_classes: outputs of the head; 0 leaves it out and returns the pooled features.
      global_pool: pooling of the last map, one of `avg`, `max`, `avgmax` and `gem`.
      stages: the stages before scaling, as `Stage` or lists of its numbers.
      scale_ends: whether stem, last 1x1 and the depth of the first and last stage are
        scaled too.
      se_ratio: squeezed channels as a share of a block's input; 0: no squeeze and
        excitation.
      activation: elementwise function.
      padding: zeros around the image at each convolution: "SAME" as in TensorFlow; None
        is half the kernel on every side, as in torch.
      dropout_rate: probability of dropping a pooled feature, in [0, 1).
      drop_path_rate: probability of dropping a block's branch, in [0, 1); it grows
        linearly from 0 at the first block, and would be reached after the last.
      output_stride: the largest stride of a map, in pixels of the image. Below 32, the
        last stages have dilation in the place of stride, as with timm's
        `output_stride` and torchvision's `replace_stride_with_dilation`; the parameters
        are the same.
      bn_momentum: decay of the running statistics (torch's momentum is 1 minus this).
      bn_epsilon: added to the variance.
      bn_axis_name: mapped axis to take batch statistics over, under `jax.pmap`.
      dtype: dtype of the computation. Parameters, statistics, pooling and head are
        float32, or `dtype` where that is wider.
    """

    depth_multiplier: float = 1.0
    width_multiplier: float = 1.0
    num_classes: int = 1000
    global_pool: Pooling = "avg"
    stages: Sequence[Sequence[int]] = _B0
    scale_ends: bool = True
    se_ratio: float = 0.25
    activation: Callable[[jax.Array], jax.Array] = nn.silu
    padding: Padding | None = None
    dropout_rate: float = 0.2
    drop_path_rate: float = 0.2
    output_stride: int = 32
    bn_momentum: float = 0.9
    bn_epsilon: float = 1e-5
    bn_axis_name: str | None = None
    dtype: Dtype = jnp.float32

    def __post_init__(self):
        super().__post_init__()
        check_rate("dropout_rate", self.dropout_rate)
        check_rate("drop_path_rate", self.drop_path_rate)
        check_output_stride(self.output_stride, 2)
        for field in ("depth_multiplier", "width_multiplier"):
            if not getattr(self, field) > 0:
                raise ValueError(
                    f"{field} must be positive, got {getattr(self, field)}."
                )
        finite_number("se_ratio", self.se_ratio, 0)
        for stage in self.stages:
            if len(stage) != len(Stage._fields):
                raise ValueError(
                    f"A stage is ({', '.join(Stage._fields)}), got {stage}."
                )

    @property
    def stage_sizes(self) -> tuple[int, ...]:
        """Number of blocks per stage, after scaling."""
        blocks = [Stage(*stage).blocks for stage in self.stages]
        scaled = [math.ceil(n * self.depth_multiplier) for n in blocks]
        if not self.scale_ends:
            scaled[0], scaled[-1] = blocks[0], blocks[-1]
        return tuple(scaled)

    @property
    def pyramid(self) -> tuple[str, ...]:
        """Names of the maps that a pyramid is made of: the last of each stride."""
        return last_of_each_stride(self._strides)

    @property
    def _strides(self) -> list[int]:
        return [Stage(*stage).strides for stage in self.stages]

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        """Float `[N, H, W, C] -> [N, num_classes]`, or `[N, features]` without a head.

        Stages 1 to 7 are 2, 4, 8, 16, 16, 32 and 32 times smaller than the images,
        rounded up, but no more than `output_stride` times.

        Raises:
          ValueError: if `images` is not of rank 4.
          TypeError: if `images` are not floats.
        """
        x = as_images(images, self.dtype)
        conv = configure(Conv, self.dtype)
        conv_block = partial(
            ConvBlock,
            padding=self.padding,
            activation=self.activation,
            conv=conv,
            norm=configure_norm(
                self.dtype,
                self.bn_momentum,
                self.bn_axis_name,
                epsilon=self.bn_epsilon,
            ),
        )
        # For a depthwise kernel [kh, kw, 1, C], JAX's fan in is the authors' fan out.
        init = nn.initializers.variance_scaling(2.0, "fan_in", "normal")
        depthwise = partial(conv_block, conv=partial(conv, kernel_init=init))

        # Stem.
        x = conv_block(self._end(_STEM), 3, 2, name="conv_stem")(x, train=train)
        self.sow("intermediates", "stem", x)

        # Stages.
        block_index, blocks = 0, sum(self.stage_sizes)
        stages = stage_steps(2, self._strides, self.output_stride)
        for i, size in enumerate(self.stage_sizes):
            stage, steps = Stage(*self.stages[i]), stages[i]
            for j in range(size):
                drop_path_rate = self.drop_path_rate * block_index / blocks
                x = MBConv(
                    round_channels(stage.features * self.width_multiplier),
                    stage.kernel_size,
                    steps.strides if j == 0 else 1,
                    stage.expand_ratio,
                    se_ratio=self.se_ratio,
                    activation=self.activation,
                    drop_path=partial(DropPath, drop_path_rate, self.bn_axis_name),
                    conv_block=conv_block,
                    depthwise=depthwise,
                    dilation=steps[1 if j == 0 else 2],
                    shortcut=j > 0 or stage.strides == 1,
                    name=f"stage{i + 1}_block{j + 1}",
                )(x, train=train)
                block_index += 1
            self.sow("intermediates", f"stage{i + 1}", x)

        # Head.
        x = conv_block(self._end(_HEAD), 1, name="conv_head")(x, train=train)
        x = global_pool(self.global_pool)(x)
        self.sow("intermediates", "pre_logits", x)
        if self.num_classes == 0:
            return x
        x = nn.Dropout(self.dropout_rate, deterministic=not train)(x)
        init = nn.initializers.variance_scaling(1 / 3, "fan_out", "uniform")
        return linear_head(self.num_classes, self.dtype, init)(x)

    def _end(self, channels: int) -> int:
        """Number of channels of the stem or the head."""
        return round_channels(
            channels * (self.width_multiplier if self.scale_ends else 1)
        )


# Variants: width, depth and dropout of the authors' nets.


@register(paper=_PAPER, image_size=224)
def efficientnet_b0(**fields: Any) -> EfficientNet:
    """EfficientNet-B0: 5,288,548 parameters, trained at 224 px."""
    return _efficientnet(1.0, 1.0, 0.2, fields)


@register(paper=_PAPER, image_size=240)
def efficientnet_b1(**fields: Any) -> EfficientNet:
    """EfficientNet-B1: 7,794,184 parameters, trained at 240 px."""
    return _efficientnet(1.0, 1.1, 0.2, fields)


@register(paper=_PAPER, image_size=260)
def efficientnet_b2(**fields: Any) -> EfficientNet:
    """EfficientNet-B2: 9,109,994 parameters, trained at 260 px."""
    return _efficientnet(1.1, 1.2, 0.3, fields)


@register(paper=_PAPER, image_size=300)
def efficientnet_b3(**fields: Any) -> EfficientNet:
    """EfficientNet-B3: 12,233,232 parameters, trained at 300 px."""
    return _efficientnet(1.2, 1.4, 0.3, fields)


@register(paper=_PAPER, image_size=380)
def efficientnet_b4(**fields: Any) -> EfficientNet:
    """EfficientNet-B4: 19,341,616 parameters, trained at 380 px."""
    return _efficientnet(1.4, 1.8, 0.4, fields)


@register(paper=_PAPER, image_size=456)
def efficientnet_b5(**fields: Any) -> EfficientNet:
    """EfficientNet-B5: 30,389,784 parameters, trained at 456 px."""
    return _efficientnet(1.6, 2.2, 0.4, fields, **_FROM_TF)


@register(paper=_PAPER, image_size=528)
def efficientnet_b6(**fields: Any) -> EfficientNet:
    """EfficientNet-B6: 43,040,704 parameters, trained at 528 px."""
    return _efficientnet(1.8, 2.6, 0.5, fields, **_FROM_TF)


@register(paper=_PAPER, image_size=600)
def efficientnet_b7(**fields: Any) -> EfficientNet:
    """EfficientNet-B7: 66,347,960 parameters, trained at 600 px."""
    return _efficientnet(2.0, 3.1, 0.5, fields, **_FROM_TF)


@register(paper=_PAPER, image_size=224)
def tf_efficientnet_b0(**fields: Any) -> EfficientNet:
    """EfficientNet-B0 of the authors: 5,288,548 parameters, trained at 224 px."""
    return _efficientnet(1.0, 1.0, 0.2, fields, **_TF)


@register(paper=_PAPER, image_size=240)
def tf_efficientnet_b1(**fields: Any) -> EfficientNet:
    """EfficientNet-B1 of the authors: 7,794,184 parameters, trained at 240 px."""
    return _efficientnet(1.0, 1.1, 0.2, fields, **_TF)


@register(paper=_PAPER, image_size=260)
def tf_efficientnet_b2(**fields: Any) -> EfficientNet:
    """EfficientNet-B2 of the authors: 9,109,994 parameters, trained at 260 px."""
    return _efficientnet(1.1, 1.2, 0.3, fields, **_TF)


@register(paper=_PAPER, image_size=300)
def tf_efficientnet_b3(**fields: Any) -> EfficientNet:
    """EfficientNet-B3 of the authors: 12,233,232 parameters, trained at 300 px."""
    return _efficientnet(1.2, 1.4, 0.3, fields, **_TF)


@register(paper=_PAPER, image_size=380)
def tf_efficientnet_b4(**fields: Any) -> EfficientNet:
    """EfficientNet-B4 of the authors: 19,341,616 parameters, trained at 380 px."""
    return _efficientnet(1.4, 1.8, 0.4, fields, **_TF)


@register(paper=_PAPER, image_size=456)
def tf_efficientnet_b5(**fields: Any) -> EfficientNet:
    """EfficientNet-B5 of the authors: 30,389,784 parameters, trained at 456 px."""
    return _efficientnet(1.6, 2.2, 0.4, fields, **_TF)


@register(paper=_PAPER, image_size=528)
def tf_efficientnet_b6(**fields: Any) -> EfficientNet:
    """EfficientNet-B6 of the authors: 43,040,704 parameters, trained at 528 px."""
    return _efficientnet(1.8, 2.6, 0.5, fields, **_TF)


@register(paper=_PAPER, image_size=600)
def tf_efficientnet_b7(**fields: Any) -> EfficientNet:
    """EfficientNet-B7 of the authors: 66,347,960 parameters, trained at 600 px."""
    return _efficientnet(2.0, 3.1, 0.5, fields, **_TF)


@register(paper=_PAPER_B8, image_size=672)
def tf_efficientnet_b8(**fields: Any) -> EfficientNet:
    """EfficientNet-B8 of the authors: 87,413,142 parameters, trained at 672 px."""
    return _efficientnet(2.2, 3.6, 0.5, fields, **_TF)


@register(paper=_PAPER_L2, image_size=475)
def tf_efficientnet_l2(**fields: Any) -> EfficientNet:
    """EfficientNet-L2: 480,309,308 parameters, trained at 475 px, tested at 800 px."""
    return _efficientnet(4.3, 5.3, 0.5, fields, **_TF)


@register(paper=_PAPER, image_size=224)
def tf_efficientnet_lite0(**fields: Any) -> EfficientNet:
    """EfficientNet-Lite0: 4,652,008 parameters, trained at 224 px."""
    return _efficientnet(1.0, 1.0, 0.2, fields, **_LITE)


@register(paper=_PAPER, image_size=240)
def tf_efficientnet_lite1(**fields: Any) -> EfficientNet:
    """EfficientNet-Lite1: 5,416,680 parameters, trained at 240 px."""
    return _efficientnet(1.0, 1.1, 0.2, fields, **_LITE)


@register(paper=_PAPER, image_size=260)
def tf_efficientnet_lite2(**fields: Any) -> EfficientNet:
    """EfficientNet-Lite2: 6,092,072 parameters, trained at 260 px."""
    return _efficientnet(1.1, 1.2, 0.3, fields, **_LITE)


@register(paper=_PAPER, image_size=280)
def tf_efficientnet_lite3(**fields: Any) -> EfficientNet:
    """EfficientNet-Lite3: 8,197,096 parameters, trained at 280 px."""
    return _efficientnet(1.2, 1.4, 0.3, fields, **_LITE)


@register(paper=_PAPER, image_size=300)
def tf_efficientnet_lite4(**fields: Any) -> EfficientNet:
    """EfficientNet-Lite4: 13,006,568 parameters, trained at 300 px."""
    return _efficientnet(1.4, 1.8, 0.3, fields, **_LITE)


_FROM_TF = {"bn_momentum": 0.99, "bn_epsilon": 1e-3}
_TF = {"padding": "SAME", "bn_epsilon": 1e-3}
_LITE = {**_TF, "scale_ends": False, "se_ratio": 0.0, "activation": nn.relu6}


def _efficientnet(width, depth, dropout_rate, fields, **defaults) -> EfficientNet:
    scaled = {"width_multiplier": width, "depth_multiplier": depth}
    return EfficientNet(
        **{**scaled, "dropout_rate": dropout_rate, **defaults, **fields}
    )
