"""Windows of random area and proportions, cut from images as they are decoded."""

import math
from dataclasses import dataclass

import numpy as np

from train.data.decode import Interpolation, Pixels, cut, resize, size_of

__all__ = ["Windows"]

_ATTEMPTS = 10  # To draw a window that fits, as torchvision has it.


@dataclass(frozen=True)
class Windows:
    """The windows of a run's training images, a function of the place in the run.

    Szegedy et al. 2014, "Going deeper with convolutions",
    https://arxiv.org/abs/1409.4842, section 6; drawn as torchvision's
    `RandomResizedCrop`.

    Attributes:
      seed: of the run, not negative.
      scale: range of the window's share of the image's area, in (0, 1].
      ratio: range of its width over its height, drawn evenly in the logarithm.
    """

    seed: int
    scale: tuple[float, float]
    ratio: tuple[float, float] = (3 / 4, 4 / 3)

    def draw(self, position: int, height: int, width: int) -> tuple[int, int, int, int]:
        """Top, left, height and width of a window, in pixels.

        Another resolution of the same image has the same window, but for rounding.

        Args:
          position: the image's place in the run.
          height: of the image, in pixels.
          width: likewise.
        """
        # Three words: those of the order of the images are two.
        rng = np.random.default_rng([self.seed, position, 0])
        low, high = map(math.log, self.ratio)
        shares = rng.uniform(*self.scale, size=_ATTEMPTS)
        logs = rng.uniform(low, high, _ATTEMPTS)
        down, across = rng.random(2)
        for share, log in zip(shares, logs, strict=True):
            area, ratio = share * height * width, math.exp(log)
            h, w = math.sqrt(area / ratio), math.sqrt(area * ratio)
            # Before they are rounded, or the resolution would decide.
            if h <= height and w <= width:
                h, w = max(round(h), 1), max(round(w), 1)
                top, left = int(down * (height - h + 1)), int(across * (width - w + 1))
                return top, left, h, w
        # The largest in the centre whose proportions are in the range.
        h = min(height, max(round(width / self.ratio[0]), 1))
        w = min(width, max(round(height * self.ratio[1]), 1))
        return (height - h) // 2, (width - w) // 2, h, w

    def least(self, position: int, size: int, height: int, width: int) -> int:
        """Short side of the image, in pixels, whose window has `size` for its own."""
        _, _, h, w = self.draw(position, height, width)
        return math.ceil(size * min(height, width) / min(h, w))

    def cut(
        self, image: Pixels, position: int, size: int, method: Interpolation
    ) -> np.ndarray:
        """The image's window, resized with antialiasing.

        Args:
          image: the pixels.
          position: its place in the run.
          size: side of the result, in pixels.
          method: the filter.

        Returns:
          `uint8 [size, size, C]`.
        """
        window = cut(image, *self.draw(position, *size_of(image)))
        return resize(window, size, size, method)
