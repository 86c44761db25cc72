"""A feature pyramid network on one of our backbones, trained to segment digits.

    pip install -e '.[train]'
    python examples/segment_with_fpn.py

Lin et al. 2017, "Feature pyramid networks for object detection",
https://arxiv.org/abs/1612.03144, section 3, with the head of Kirillov et al. 2019,
"Panoptic feature pyramid networks", https://arxiv.org/abs/1901.02446, figure 4, of one
convolution per level.
"""

from functools import partial

import jax
import jax.numpy as jnp
from digit_masks import segment_digits
from flax import linen as nn


class FPN(nn.Module):
    """A pyramid of maps with equal channels, and the logits of every pixel.

    Attributes:
      backbone: a model with `features_only`.
      classes: number of classes, K.
      channels: channels of the pyramid's maps.
    """

    backbone: nn.Module
    classes: int
    channels: int = 32

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        """Float `[N, H, W, C] -> [N, H, W, K]`."""
        conv = partial(nn.Conv, self.channels)
        maps = list(self.backbone(images, train=train).values())
        lateral = [conv((1, 1))(x) for x in maps]
        # Top-down: each level is what is above it, enlarged, and its own lateral map.
        levels = [lateral[-1]]
        for x in reversed(lateral[:-1]):
            levels.append(x + enlarged(levels[-1], x.shape, "nearest"))
        smooth = [nn.relu(conv((3, 3))(x)) for x in levels]
        finest = smooth[-1].shape
        merged = jnp.stack([enlarged(x, finest) for x in smooth]).sum(axis=0)
        return enlarged(nn.Conv(self.classes, (1, 1))(merged), images.shape)


def enlarged(
    x: jax.Array, shape: tuple[int, ...], method: str = "bilinear"
) -> jax.Array:
    """Maps `[N, h, w, C]` at the height and width of another shape."""
    return jax.image.resize(x, (len(x), *shape[1:3], x.shape[-1]), method)


if __name__ == "__main__":
    segment_digits(__doc__, partial(FPN, classes=11))
