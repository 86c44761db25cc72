"""Contact sheets of every augmentation, for `cnn-flax gallery`."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cnn_flax import augment
from cnn_flax.style import INK, PAPER, SOFT

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["draw_sheets", "row_count"]

_TILE = 96  # Pixels of an image on a sheet.
_COLUMNS = 7
_LABEL_WIDTH, _LABEL_HEIGHT, _GAP = 176, 16, 4
_FONT = 12  # Pixels.

_CORNERS = np.array([(0, 0), (1, 0), (1, 1), (0, 1)]) * (_TILE - 1)
_INWARD = np.array([(1, 0.3), (-0.2, 1), (-0.4, -1), (0.6, -0.1)]) * _TILE / 2


class _Sweep(NamedTuple):
    """A row of a sheet: an operation over its range.

    Attributes:
      values: the operation's argument, one value per image.
      change: from images `[N, H, W, C]` and values `[N]` to images.
    """

    values: Sequence[float]
    change: Callable[[jax.Array, jax.Array], jax.Array]


def _over(low: float, high: float) -> list[float]:
    return np.linspace(low, high, _COLUMNS).tolist()


def _distort(images: jax.Array, share: jax.Array) -> jax.Array:
    start = jnp.broadcast_to(jnp.asarray(_CORNERS, float), (len(share), 4, 2))
    moves = share[:, None, None] * jnp.asarray(_INWARD)[None]
    return augment.perspective(images, start, start + moves)


def _window(images: jax.Array, side: jax.Array) -> jax.Array:
    start = (_TILE - side) // 2
    return augment.resized_crop(images, start, start, side, side, _TILE)


def _erase_middle(images: jax.Array, side: jax.Array) -> jax.Array:
    start = (_TILE - side) // 2
    return augment.erase(images, start, start, side, side, 0.5)


def _where(operation: Callable[..., jax.Array]) -> _Sweep:
    """A sweep of an operation without strength: off, then on."""

    def change(images, where):
        return jnp.where(where[:, None, None, None] > 0, operation(images), images)

    return _Sweep([0, 1], change)


_SWEEPS = {
    "rotate, degrees": _Sweep(_over(-90, 90), augment.rotate),
    "affine, scale": _Sweep(_over(0.4, 1.6), lambda x, v: augment.affine(x, scale=v)),
    "shear_x, degrees": _Sweep(_over(-45, 45), augment.shear_x),
    "shear_y, degrees": _Sweep(_over(-45, 45), augment.shear_y),
    "translate_x, pixels": _Sweep(_over(-60, 60), augment.translate_x),
    "translate_y, pixels": _Sweep(_over(-60, 60), augment.translate_y),
    "perspective, share": _Sweep(_over(0, 1), _distort),
    "resized_crop, side": _Sweep(_over(96, 24), _window),
    "horizontal_flip": _where(augment.horizontal_flip),
    "vertical_flip": _where(augment.vertical_flip),
    "adjust_brightness": _Sweep(_over(0, 2.4), augment.adjust_brightness),
    "adjust_contrast": _Sweep(_over(0, 2.4), augment.adjust_contrast),
    "adjust_saturation": _Sweep(_over(0, 3), augment.adjust_saturation),
    "adjust_hue": _Sweep(_over(-0.5, 0.5), augment.adjust_hue),
    "adjust_gamma": _Sweep([0.25, 0.5, 0.75, 1, 1.5, 2, 4], augment.adjust_gamma),
    "adjust_sharpness": _Sweep([0, 0.5, 1, 2, 4, 8, 16], augment.adjust_sharpness),
    "gaussian_blur, sigma": _Sweep(
        _over(0, 3), lambda x, v: augment.gaussian_blur(x, 19, v)
    ),
    "solarize, threshold": _Sweep(_over(1.02, 0), augment.solarize),
    "posterize, bits": _Sweep([8, 6, 5, 4, 3, 2, 1], augment.posterize),
    "erase, side": _Sweep(_over(0, 72), _erase_middle),
    "rgb_to_grayscale": _where(lambda x: augment.rgb_to_grayscale(x, 3)),
    "invert": _where(augment.invert),
    "equalize": _where(augment.equalize),
    "autocontrast": _where(augment.autocontrast),
}

# Random operations, from a key and images.
_RANDOM: dict[str, Callable[[jax.Array, jax.Array], jax.Array]] = {
    "random_crop": partial(augment.random_crop, size=_TILE, padding=12),
    "random_resized_crop": partial(augment.random_resized_crop, size=_TILE),
    "random_horizontal_flip": augment.random_horizontal_flip,
    "random_vertical_flip": augment.random_vertical_flip,
    "random_rotation": partial(augment.random_rotation, degrees=30),
    "random_affine": partial(
        augment.random_affine, degrees=20, translate=(0.2, 0.2), scale=(0.7, 1.3)
    ),
    "random_shear": partial(augment.random_shear, x=20, y=20),
    "random_perspective": augment.random_perspective,
    "random_brightness": partial(augment.random_brightness, brightness=0.6),
    "color_jitter": partial(
        augment.color_jitter, brightness=0.4, contrast=0.4, saturation=0.4, hue=0.2
    ),
    "random_grayscale": partial(augment.random_grayscale, p=0.5),
    "gaussian_noise": partial(augment.gaussian_noise, sigma=(0.0, 0.3)),
    "random_gaussian_blur": partial(augment.random_gaussian_blur, kernel_size=9),
    "random_erasing": augment.random_erasing,
    "cutout": partial(augment.cutout, size=_TILE // 2),
}
_POLICIES: dict[str, Callable[[jax.Array, jax.Array], jax.Array]] = {
    "rand_augment, 5": partial(augment.rand_augment, magnitude=5),
    "rand_augment, 9": augment.rand_augment,
    "rand_augment, 27": partial(augment.rand_augment, magnitude=27),
    "noisy_student_augment": augment.noisy_student_augment,
    "trivial_augment": augment.trivial_augment,
    "auto_augment, imagenet": augment.auto_augment,
    "auto_augment, cifar10": partial(augment.auto_augment, policy="cifar10"),
    "auto_augment, svhn": partial(augment.auto_augment, policy="svhn"),
    "augmix": augment.augmix,
}


def row_count() -> int:
    """The number of rows on all sheets."""
    return len(_SWEEPS) + len(_RANDOM) + len(_POLICIES)


def draw_sheets(
    pixels: np.ndarray, advance: Callable[[], object] | None = None
) -> dict[str, "Image"]:
    """Contact sheets of one image.

    Args:
      pixels: uint8 `[H, W, 3]`; its middle is shown.
      advance: called after each row that has been computed.

    Returns:
      Sheets by name, whose rows begin with the original: `operations`, each over its
      range, with the value above each image; `random`, seven draws of each random
      operation; `policies`, seven draws of each policy.

    Raises:
      ImportError: if Pillow is not installed.
    """
    image = augment.resize(jnp.asarray(pixels, jnp.float32) / 255, _TILE)
    images = jnp.broadcast_to(
        augment.center_crop(image, _TILE)[None], (_COLUMNS, _TILE, _TILE, 3)
    )
    advance = advance or (lambda: None)
    operations = {}
    for name, sweep in _SWEEPS.items():
        values = jnp.asarray(sweep.values, float)
        changed = jax.jit(sweep.change)(images[: len(sweep.values)], values)
        operations[name] = ([f"{value:.3g}" for value in sweep.values], changed)
        advance()
    return {
        "operations": _sheet(operations, images[0]),
        "random": _sheet(_draws(_RANDOM, images, advance), images[0]),
        "policies": _sheet(_draws(_POLICIES, images, advance), images[0]),
    }


def _draws(operations, images, advance):
    key, rows = jax.random.key(0), {}
    for row, (name, operation) in enumerate(operations.items()):
        drawn = jax.jit(operation)(jax.random.fold_in(key, row), images)
        rows[name] = (None, drawn)
        advance()
    return rows


def _sheet(rows, original: jax.Array) -> "Image":
    """One picture of rows: from a name to labels or None, and images `[N, H, W, 3]`.

    Without labels, the columns have a heading once.
    """
    from PIL import Image, ImageDraw, ImageFont

    step = _TILE + _GAP
    headed = [
        i == 0 or labels is not None for i, (labels, _) in enumerate(rows.values())
    ]
    heights = [step + _LABEL_HEIGHT * has_heading for has_heading in headed]
    size = (_LABEL_WIDTH + (1 + _COLUMNS) * step + 2 * _GAP, sum(heights) + _GAP)
    sheet = Image.new("RGB", size, PAPER)
    pen = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(_FONT)
    bottom = _GAP
    for (name, (labels, images)), has_heading, height in zip(
        rows.items(), headed, heights, strict=True
    ):
        bottom += height
        top = bottom - step
        # Next to the row: it ends where the images begin.
        place = (_LABEL_WIDTH - 2 * _GAP, top + _TILE // 2)
        pen.text(place, name, fill=INK, font=font, anchor="rm")
        headings = ["original", *(labels or [])] if has_heading else []
        for column, tile in enumerate([original, *images]):
            # The original stands a little apart.
            left = _LABEL_WIDTH + column * step + 2 * _GAP * (column > 0)
            pixels = np.asarray(jnp.round(jnp.clip(tile, 0, 1) * 255), np.uint8)
            sheet.paste(Image.fromarray(pixels), (left, top))
            if column < len(headings):
                place = (left, top - _LABEL_HEIGHT + 1)
                pen.text(place, headings[column], fill=SOFT, font=font)
    return sheet
