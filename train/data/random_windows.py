"""Random resized crops, taken on the host as images are decoded."""

import math
from dataclasses import dataclass

import numpy as np

from train.data.decode import Interpolation, Pixels, crop, resize, size_of

__all__ = ["RandomWindows"]

_ATTEMPTS = 10  # To sample a window that fits, as in torchvision.


@dataclass(frozen=True)
class RandomWindows:
    """Windows of random area and aspect ratio, a function of the position in the run.

    Szegedy et al. 2014, "Going deeper with convolutions",
    https://arxiv.org/abs/1409.4842, section 6; sampled as in torchvision's
    `RandomResizedCrop`.

    Attributes:
      seed: seed of the run, at least 0.
      scale: range of the window's share of the image's area, in (0, 1].
      ratio: range of width / height, sampled log-uniformly.
    """

    seed: int
    scale: tuple[float, float]
    ratio: tuple[float, float] = (3 / 4, 4 / 3)

    def sample(
        self, position: int, height: int, width: int
    ) -> tuple[int, int, int, int]:
        """Top, left, height and width of a window, in pixels.

        The window is the same at another resolution of the image, except for rounding.

        Args:
          position: the image's position in the run.
          height: height of the image, in pixels.
          width: width of the image, in pixels.
        """
        # Three words, unlike the two that seed the permutations: other random numbers.
        rng = np.random.default_rng([self.seed, position, 0])
        low, high = map(math.log, self.ratio)
        shares = rng.uniform(*self.scale, size=_ATTEMPTS)
        logs = rng.uniform(low, high, _ATTEMPTS)
        down, across = rng.random(2)
        for share, log in zip(shares, logs, strict=True):
            area, ratio = share * height * width, math.exp(log)
            h, w = math.sqrt(area / ratio), math.sqrt(area * ratio)
            # Compared before rounding, so that the resolution makes no difference.
            if h <= height and w <= width:
                h, w = max(round(h), 1), max(round(w), 1)
                top, left = int(down * (height - h + 1)), int(across * (width - w + 1))
                return top, left, h, w
        # The largest central window whose aspect ratio is in the range.
        h = min(height, max(round(width / self.ratio[0]), 1))
        w = min(width, max(round(height * self.ratio[1]), 1))
        return (height - h) // 2, (width - w) // 2, h, w

    def target_side(self, position: int, size: int, height: int, width: int) -> int:
        """Short side of the image, in pixels, that gives the window the side `size`.

        Args:
          position: the image's position in the run.
          size: short side of the window, in pixels.
          height: height of the image, in pixels.
          width: width of the image, in pixels.
        """
        _, _, h, w = self.sample(position, height, width)
        return math.ceil(size * min(height, width) / min(h, w))

    def crop(
        self, image: Pixels, position: int, size: int, method: Interpolation
    ) -> np.ndarray:
        """Crops the image's window and resizes it, with antialiasing.

        Args:
          image: the pixels.
          position: the image's position in the run.
          size: side of the result, in pixels.
          method: the filter.

        Returns:
          `uint8 [size, size, C]`.
        """
        window = crop(image, *self.sample(position, *size_of(image)))
        return resize(window, size, size, method)
