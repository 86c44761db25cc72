"""`python -m train search-scaling`: grid search of EfficientNet's coefficients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from tyro.conf import Positional

from train import recipes
from train.compilation_cache import use_compilation_cache
from train.config import Config
from train.console import percent
from train.errors import UserError

if TYPE_CHECKING:
    from cnn_flax.models.efficientnet import Coefficients

__all__ = ["SearchScaling", "scaled", "scaling_table", "search"]

Json = dict[str, Any]


@dataclass(frozen=True)
class SearchScaling:
    """Trains a grid of nets with twice the work, by depth, width and resolution."""

    recipe: Positional[str]
    """The recipe to scale: one with an EfficientNet."""
    out: Path = Path("runs/scaling")
    """Folder of the runs; a search that was stopped resumes there."""
    step: float = 0.2
    """Spacing of the grid."""
    tolerance: float = 0.1
    """Largest deviation of a net's work from 2."""

    def __call__(self) -> None:
        """Runs the command."""
        if self.recipe not in recipes.names():
            raise recipes.no_recipe(self.recipe)
        recipe = recipes.load(self.recipe)
        use_compilation_cache()
        best, points = search(
            recipe.config,
            self.out,
            recipe=recipe.name,
            step=self.step,
            tolerance=self.tolerance,
        )
        Console().print(scaling_table(best, points))


def scaled(config: Config, coefficients: Coefficients) -> Config:
    """A config with depth, width and resolution multiplied.

    Args:
      config: a config whose model has `depth_multiplier` and `width_multiplier`.
      coefficients: the factors of depth, width and resolution.
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
    fit: Callable[..., Json] | None = None,
) -> tuple[Coefficients, list[tuple[Coefficients, Json]]]:
    """Trains every net of the grid and picks the most accurate one.

    Tan and Le 2019, https://arxiv.org/abs/1905.11946, section 3.3, step 1. Each point
    of the grid is a run in `out`, so that a search that was stopped can be resumed.

    Args:
      config: the config to scale: the net at phi = 0.
      out: folder of the runs.
      recipe: name of the recipe.
      step: spacing of the grid.
      tolerance: largest deviation of a net's work from 2.
      console: prints progress; None is standard output.
      fit: trains one config in a folder and returns its result; by default
        `train.run.loop.fit`.

    Returns:
      The best coefficients, and each point with its run's result, in the grid's order.

    Raises:
      UserError: if the model cannot be scaled, or the grid is empty.
    """
    if "efficientnet" not in config.network.model:
        raise UserError(
            f"{config.network.model} has no depth and width to scale; an EfficientNet "
            "has."
        )
    from cnn_flax.models.efficientnet import Coefficients, search_scaling

    if fit is None:
        from train.run.loop import fit
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


def scaling_table(
    best: Sequence[float], points: Sequence[tuple[Sequence[float], Json]]
) -> Table:
    """The results of a search for scaling coefficients, one row per net.

    Args:
      best: alpha, beta and gamma of the most accurate net.
      points: the coefficients of each net, and the result of its run.
    """
    columns = ("depth", "width", "resolution", "work", "parameters", "accuracy", "")
    table = Table(*columns, title="Scaling", title_justify="left")
    for point, result in points:
        alpha, beta, gamma = point
        table.add_row(
            *(f"{value:g}" for value in point),
            f"{alpha * beta**2 * gamma**2:.2f}",
            f"{result['parameters']:,}",
            percent(result["accuracy"]),
            "best" if point == best else "",
        )
    return table
