"""A window of an enlarged image, without the rest of it."""

import numpy as np

__all__ = ["enlarged_window", "is_mostly_cut_off"]

_REACH = {"bilinear": 1, "bicubic": 2, "lanczos": 3}  # Of the filters, in pixels.
_PRECISION = 22  # Bits of Pillow's weights after the point.


def is_mostly_cut_off(
    shape: tuple[int, int], size: tuple[int, int], window: tuple[int, int]
) -> bool:
    """Whether an image must be enlarged in a window only.

    With a short side of 224, an image of 1 x 3000 pixels becomes one of 150 million, of
    which the central square has 50,000. Of a photograph, which Pillow enlarges whole
    faster, the square is about a half.

    Args:
      shape: height and width of the image.
      size: height and width of the enlarged image.
      window: height and width of the window.
    """
    return min(shape) < min(size) and size[0] * size[1] > 16 * window[0] * window[1]


def enlarged_window(
    pixels: np.ndarray,
    size: tuple[int, int],
    window: tuple[int, int, int, int],
    method: str,
) -> np.ndarray:
    """A window of an image that Pillow enlarges, equal to the bit.

    `Image.resize(box=)` rounds the box to float32, and with it some pixels.

    Args:
      pixels: `uint8 [h, w, C]`.
      size: height and width of the enlarged image, at least those of the image.
      window: top, left, height and width in the enlarged image; inside it.
      method: `nearest`, `bilinear`, `bicubic` or `lanczos`.

    Returns:
      `uint8 [height, width, C]`.
    """
    top, left, height, width = window
    rows, row_weights = _taps(pixels.shape[0], size[0], top, height, method)
    columns, column_weights = _taps(pixels.shape[1], size[1], left, width, method)
    # Pillow too enlarges the columns first, and rounds between.
    first = int(rows.min())
    turned = pixels[first : int(rows.max()) + 1].swapaxes(0, 1)
    turned = _weighted_sum(turned, columns, column_weights)
    return _weighted_sum(turned.swapaxes(0, 1), rows - first, row_weights)


def _taps(
    length: int, size: int, start: int, count: int, method: str
) -> tuple[np.ndarray, np.ndarray]:
    """Where `count` pixels of an enlarged row come from.

    Args:
      length: pixels of the row.
      size: pixels of the enlarged row.
      start: index of the first of the `count` pixels in the enlarged row.
      count: number of pixels.
      method: the filter.

    Returns:
      Indices in the row, and their weights as multiples of `2 ** -_PRECISION`; each
      `[count, taps]`.
    """
    scale = length / size
    if method == "nearest":
        # Pillow adds up the steps, rounding errors included.
        steps = np.full(start + count, scale)
        steps[0] = scale / 2
        places = np.cumsum(steps)[start:]
        return places.astype(int)[:, None], np.full((count, 1), 2**_PRECISION)
    reach = _REACH[method]
    centre = (np.arange(start, start + count) + 0.5)[:, None] * scale
    index = np.floor(centre - reach + 0.5).astype(int) + np.arange(2 * reach + 1)
    weights = _kernel(np.abs(index - centre + 0.5), method)
    # There is nothing past the edges; the other weights make up for it.
    weights[(index < 0) | (index >= length)] = 0
    weights /= weights.sum(axis=1, keepdims=True)
    rounded = np.trunc(weights * 2**_PRECISION + np.copysign(0.5, weights))
    return index.clip(0, length - 1), rounded.astype(int)


def _kernel(x: np.ndarray, method: str) -> np.ndarray:
    """The filter's value at a distance of `x` pixels."""
    if method == "bilinear":
        return np.maximum(1 - x, 0)
    if method == "bicubic":
        near, far = (1.5 * x - 2.5) * x * x + 1, (((x - 5) * x + 8) * x - 4) * -0.5
        return np.where(x < 1, near, np.where(x < 2, far, 0))
    return np.where(x < 3, np.sinc(x) * np.sinc(x / 3), 0)


def _weighted_sum(
    pixels: np.ndarray, index: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    """Sums of rows: `uint8 [h, w, C]`, `[n, taps]` twice `-> uint8 [n, w, C]`."""
    half = 2 ** (_PRECISION - 1)
    total = sum(
        weights[:, tap, None, None] * pixels[index[:, tap]]
        for tap in range(index.shape[1])
    )
    return np.clip((total + half) >> _PRECISION, 0, 255).astype(np.uint8)
