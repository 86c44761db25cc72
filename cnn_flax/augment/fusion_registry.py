"""What is known of each operation, so that several can be carried out as one.

A deterministic operation that moves pixels is a matrix (`MATRICES`), one that is affine
in colours is a matrix of colours (`COLOURS`), one from level to level is a table
(`TABLES`). A random operation is a draw and the deterministic operation of its
arguments (`DRAWS`).
"""

import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from cnn_flax.augment import (
    colour,
    colour_matrix,
    erasing,
    filters,
    geometry,
    homography,
    levels,
    resample,
)
from cnn_flax.augment import random_colour as colours
from cnn_flax.augment import random_erasing as windows
from cnn_flax.augment import random_filters as blurs
from cnn_flax.augment import random_geometry as moves
from cnn_flax.augment.random import Draw

__all__ = [
    "COLOURS",
    "DRAWS",
    "MATRICES",
    "TABLES",
    "Operation",
    "read_operation",
]

# (H, W) and the operation's arguments -> [3, 3] or [N, 3, 3].
MATRICES: dict[Callable, Callable[..., jax.Array]] = {
    geometry.affine: homography.affine_matrix,
    geometry.crop: lambda _, top, left, height, width: homography.crop_matrix(
        top, left
    ),
    geometry.crop_window: lambda _, top, left, size: homography.crop_matrix(top, left),
    geometry.horizontal_flip: lambda size, where=True: homography.flip_matrix(
        size, horizontal=where
    ),
    geometry.perspective: lambda _, startpoints, endpoints: (
        homography.perspective_matrix(startpoints, endpoints)
    ),
    geometry.rotate: homography.rotation_matrix,
    geometry.shear_x: lambda size, degrees: homography.shear_matrix(size, x=degrees),
    geometry.shear_y: lambda size, degrees: homography.shear_matrix(size, y=degrees),
    geometry.translate_x: lambda _, pixels: homography.translation_matrix(x=pixels),
    geometry.translate_y: lambda _, pixels: homography.translation_matrix(y=pixels),
    geometry.vertical_flip: lambda size, where=True: homography.flip_matrix(
        size, vertical=where
    ),
}

# The mean colour at that point, [N, C], and the argument, [N] -> [N, C, C + 1].
COLOURS: dict[Callable, Callable[..., jax.Array]] = {
    colour.adjust_brightness: lambda mean, factor: colour_matrix.brightness_matrix(
        factor, mean.shape[1]
    ),
    colour.adjust_contrast: lambda mean, factor: colour_matrix.contrast_matrix(
        factor, mean
    ),
    colour.adjust_saturation: lambda mean, factor: colour_matrix.saturation_matrix(
        factor, mean.shape[1]
    ),
    colour.invert: lambda mean, where=None: colour_matrix.inversion_matrix(
        jnp.ones(len(mean)) if where is None else where, mean.shape[1]
    ),
}

# The counts of levels at that point, [N, C, 256], and the arguments, [N] -> as counts.
TABLES: dict[Callable, Callable[..., jax.Array]] = {
    colour.solarize: levels.solarize_table,
    levels.autocontrast: levels.autocontrast_table,
    levels.equalize: levels.equalize_table,
    levels.posterize: levels.posterize_table,
}

# A random operation -> what it draws, and the operation of these arguments.
DRAWS: dict[Callable, tuple[Callable[..., Draw], Callable[..., jax.Array]]] = {
    blurs.gaussian_noise: (blurs.draw_gaussian_noise, erasing.add_noise),
    blurs.random_gaussian_blur: (blurs.draw_gaussian_blur, filters.gaussian_blur),
    colours.color_jitter: (colours.draw_jitter, colours.jitter),
    colours.random_brightness: (colours.draw_brightness, colour.adjust_brightness),
    colours.random_grayscale: (colours.draw_grayscale, colour.adjust_saturation),
    moves.random_affine: (moves.draw_affine, geometry.affine),
    moves.random_crop: (moves.draw_crop, geometry.crop_window),
    moves.random_horizontal_flip: (moves.draw_flip, geometry.horizontal_flip),
    moves.random_perspective: (moves.draw_perspective, geometry.perspective),
    moves.random_resized_crop: (moves.draw_resized_crop, resample.resized_crop),
    moves.random_rotation: (moves.draw_rotation, geometry.rotate),
    moves.random_shear: (moves.draw_shear, geometry.affine),
    moves.random_vertical_flip: (moves.draw_flip, geometry.vertical_flip),
    windows.cutout: (windows.draw_cutout, erasing.erase),
    windows.random_erasing: (windows.draw_erasing, erasing.erase),
}


@dataclasses.dataclass(frozen=True)
class Operation:
    """One operation of a chain.

    Attributes:
      function: the deterministic operation, `(images, **arguments)`; or a random one
        that is not in `DRAWS`, which takes its key as an argument, and perhaps labels.
      options: those of its arguments that are the same in every batch.
      draw: from a key (one, or one an image), N and (H, W, C) to the other arguments.
      mixes: whether it takes labels too, and returns both.
    """

    function: Callable[..., Any]
    options: Mapping[str, Any]
    draw: Callable[[jax.Array, int, tuple[int, ...]], Draw]
    mixes: bool = False

    def arguments(self, key: jax.Array, images: jax.Array) -> dict[str, Any]:
        """All arguments beside the images: what is drawn, and the options.

        Raises:
          ValueError: if the operation refuses them.
        """
        arguments = {**self.options, **self.draw(key, len(images), images.shape[1:])}
        if self.function in MATRICES | COLOURS | TABLES:
            # The operation itself is not run where it is fused: let it check.
            jax.eval_shape(functools.partial(self.function, **arguments), images)
        return arguments


def read_operation(given: Callable[..., Any]) -> Operation:
    """What `compose` is given, as an `Operation`.

    Args:
      given: an operation of `cnn_flax.augment`, or a function of `images`, of `key,
        images` or of `key, images, labels`, with its other arguments bound by
        `functools.partial`.

    Raises:
      TypeError: if it takes neither of these, or not the arguments that are bound.
    """
    function, options = given, {}
    while isinstance(function, functools.partial):
        if function.args:
            raise TypeError(
                f"Arguments are bound by name: {function.func.__name__} has "
                f"{function.args!r}."
            )
        function, options = function.func, {**function.keywords, **options}
    leading, name = _leading(function), getattr(function, "__name__", repr(function))
    if leading not in ((), ("key",), ("key", "labels")):
        raise TypeError(
            "An operation takes images, or key, images, or key, images, labels; "
            f"{name} does not."
        )
    try:
        placed = dict.fromkeys(("images", *leading))
        inspect.signature(function).bind(**placed, **options)
    except TypeError as error:
        raise TypeError(f"{name}: {error}; bind arguments by partial.") from error
    if function in DRAWS:
        return _drawn(function, options)
    if leading:
        return Operation(
            function, options, lambda key, *_: {"key": key}, "labels" in leading
        )
    return Operation(function, options, lambda *_: {})


def _leading(function) -> tuple[str, ...] | None:
    """What of the key and labels it takes beside the images; None without images."""
    names = list(inspect.signature(function).parameters)
    if names[:3] == ["key", "images", "labels"]:
        return ("key", "labels")
    if names[:2] == ["key", "images"]:
        return ("key",)
    return () if names[:1] == ["images"] else None


def _drawn(function, options) -> Operation:
    draw, applied = DRAWS[function]
    of_draw, of_applied = (
        set(inspect.signature(f).parameters) for f in (draw, applied)
    )
    for_draw = {name: value for name, value in options.items() if name in of_draw}

    def drawn(key, n, shape):
        needed = {"shape": shape} if "shape" in of_draw else {}
        return draw(key, n, **needed, **for_draw)

    for_applied = {name: v for name, v in options.items() if name in of_applied}
    return Operation(applied, for_applied, drawn)
