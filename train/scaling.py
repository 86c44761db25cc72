"""The search for EfficientNet's scaling coefficients, a run a point of its grid."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from cnn_flax.models.efficientnet import Coefficients, search_scaling
from train.config import Config
from train.errors import UserError
from train.loop import fit

__all__ = ["scaled", "search"]

Json = dict[str, Any]


def scaled(config: Config, coefficients: Coefficients) -> Config:
    """A run's config with depth, width and resolution multiplied.

    Args:
      config: of a net that has `depth_multiplier` and `width_multiplier`.
      coefficients: what the three are multiplied by.
    """
    alpha, beta, gamma = coefficients
    fields = dict(config.network.model_fields)
    for field, factor in (("depth_multiplier", alpha), ("width_multiplier", beta)):
        fields[field] = round(float(fields.get(field, 1.0)) * factor, 10)
    return replace(
        config,
        network=replace(config.network, model_fields=fields),
        input=replace(config.input, image_size=round(config.input.image_size * gamma)),
    )


def search(
    config: Config,
    out: Path,
    *,
    recipe: str = "",
    step: float = 0.2,
    tolerance: float = 0.1,
    console: Console | None = None,
    fit: Callable[..., Json] = fit,
) -> tuple[Coefficients, list[tuple[Coefficients, Json]]]:
    """Trains every net of the grid and takes the most accurate (section 3.3, step 1).

    Each point is a run of its own in `out`, so that a search that was stopped goes on
    where it was.

    Args:
      config: what is scaled: the net at phi = 0.
      out: the folder of the runs.
      recipe: the name of the recipe that it is of.
      step: distance between neighbours in the grid.
      tolerance: how far from twice the work a net may be.
      console: where progress goes; None is standard output.
      fit: trains one config in a folder and returns its result.

    Returns:
      The best coefficients, and each point with its run's result, in the grid's order.

    Raises:
      UserError: if the net cannot be scaled, or the grid is empty.
    """
    if "efficientnet" not in config.network.model:
        raise UserError(
            f"{config.network.model} has no depth and width to scale; an EfficientNet "
            "has."
        )
    points: list[tuple[Coefficients, Json]] = []

    def score(alpha: float, beta: float, gamma: float) -> float:
        point = Coefficients(alpha, beta, gamma)
        run = out / f"depth{alpha:g}_width{beta:g}_resolution{gamma:g}"
        points.append(
            (point, fit(scaled(config, point), run, recipe=recipe, console=console))
        )
        return points[-1][1]["accuracy"]

    try:
        return search_scaling(score, step=step, tolerance=tolerance), points
    except UserError:
        raise
    except ValueError as error:
        raise UserError(str(error)) from error
