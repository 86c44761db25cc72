"""A U-Net's decoder on one of our backbones, trained to segment digits.

    pip install -e '.[train]'
    python examples/segment_with_unet.py

Ronneberger et al. 2015, "U-Net: Convolutional networks for biomedical image
segmentation", https://arxiv.org/abs/1505.04597, figure 1: the expansive path, with
BatchNorm, and a backbone in the place of the contracting path.
"""

from functools import partial

import jax
import jax.numpy as jnp
from digit_masks import segment_digits
from flax import linen as nn

from cnn_flax.layers import ConvBlock


class UNet(nn.Module):
    """A decoder that doubles the size step by step, next to the maps of the encoder.

    Attributes:
      backbone: a model with `features_only`.
      classes: number of classes, K.
      channels: channels of the finest map; each coarser one has twice as many.
    """

    backbone: nn.Module
    classes: int
    channels: int = 16

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        """Float `[N, H, W, C] -> [N, H, W, K]`."""
        maps = list(self.backbone(images, train=train).values())
        x = maps[-1]
        for level, skipped in enumerate([*reversed(maps[:-1]), images]):
            channels = self.channels * 2 ** max(len(maps) - 2 - level, 0)
            shape = (*skipped.shape[:3], x.shape[-1])
            x = jax.image.resize(x, shape, "nearest")
            x = jnp.concatenate([skipped, x], axis=-1)
            for _ in range(2):
                x = ConvBlock(channels, 3)(x, train=train)
        return nn.Conv(self.classes, (1, 1))(x)


if __name__ == "__main__":
    segment_digits(__doc__, partial(UNet, classes=11))
