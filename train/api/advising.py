"""`train.advise`: recommends how to transfer weights to a data set."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from train import recipes
from train.api.result import Result
from train.api.training import silent_orbax
from train.config import Config
from train.config_file import flag_values
from train.console import duration, literal, percent, program_name
from train.errors import UserError

if TYPE_CHECKING:
    from train.run.advice import Advice

__all__ = ["AdviseResult", "advice_table", "advise", "recommended", "trial_table"]

Json = Mapping[str, Any]

_FEW = 30  # Held-out images, of which one changes the accuracy by more than 3 %.
_RECIPES = {
    "features": "features_folder",
    "fine_tune": "finetune_folder",
    "scratch": "folder_resnet18",
}


@dataclass(frozen=True, repr=False)
class AdviseResult(Result):
    """A recommended kind of transfer, and the measurements behind it.

    `figures` are `method` (`features`, `fine_tune` or `scratch`), `reason`, `accuracy`
    (of the nearest class mean of the weights' features), `gain` (the share of the
    errors of the best probe without the weights that they avoid, at most 1),
    `images`, `classes` and `least`, the number of images in the smallest class.

    Attributes:
      advice: all measurements.
      probed: the config that the weights were probed with.
      recipe: name of the recommended recipe.
      config: the recipe's config for these images and weights, which `fit` takes.
    """

    advice: Advice
    probed: Config
    recipe: str
    config: Config

    @property
    def command(self) -> str:
        """The command line that runs `config`."""
        usual = flag_values(recipes.load(self.recipe).config)
        words = [*program_name().split(), self.recipe]
        for name, value in flag_values(self.config).items():
            if value != usual[name]:
                words += [f"--{name.replace('_', '-')}", *_words(value)]
        return shlex.join([*words, "--out", f"runs/{self.recipe}"])

    def table(self) -> Table:
        """The measurements, and the recommendation."""
        return advice_table(self.title, self.advice)

    def try_both(
        self, out: Path | str, *, steps: int = 200, quiet: bool = False
    ) -> dict[str, dict[str, Any]]:
        """Trains for a few steps with feature extraction and with fine-tuning.

        The optimizer is AdamW with a learning rate of 0.003; fine-tuning uses a tenth
        of it for the backbone.

        Args:
          out: folder of both runs; a run there that has ended is not repeated.
          steps: number of steps of each run.
          quiet: whether to print nothing.

        Returns:
          The figures of the runs `features` and `fine_tune`, as in `FitResult`.

        Raises:
          UserError, NotFiniteError, Interrupted, StorageError: as `fit`.
        """
        from train.run import advice

        console = Console(quiet=quiet, force_jupyter=False)
        with silent_orbax():
            return advice.try_both(self.probed, Path(out), steps=steps, console=console)


def advise(
    data: str,
    init: str,
    *,
    model: str | None = None,
    image_size: int = 0,
    images: int = 500,
    seed: int = 0,
    max_pixels: int = 0,
    max_unpacked_bytes: int = 0,
    quiet: bool = False,
) -> AdviseResult:
    """Recommends features, fine-tuning or training from scratch.

    This is `python -m train advise`. Two quantities decide: the number of images per
    class, and how well the nearest class mean of the weights' features classifies
    held-out images, compared with raw pixels and random weights. If the data has no
    validation images, a fifth of each class is held out; test images are not used.

    Args:
      data: data source, as `Config.input.data`.
      init: the weights: a file, a run's folder, an id on the Hugging Face Hub, or
        `published`, which needs a model.
      model: the model of the weights, one of `cnn_flax.list_models()`; None detects it.
      image_size: height and width of the model's input, in pixels; 0 for that of the
        weights.
      images: number of images to probe at most, at least 1, for the class means and
        for the held-out images each.
      seed: seed that samples these images.
      max_pixels: allow images of up to this many pixels, if that is more than Pillow's
        limit.
      max_unpacked_bytes: allow the arrays of a compressed npz or idx file to have up to
        this many bytes, if that is more than 64 MiB and 32 times its size.
      quiet: whether to print nothing.

    Raises:
      UserError: if an argument is out of range, or published weights were asked for
        without a model.
      UnknownModelError, WeightsError: if the weights do not exist, or are of another
        model.
      SourceError: if the data cannot be used; a `UserError`.
    """
    from cnn_flax.weights.preprocessing import allow_pixels
    from cnn_flax.weights.unpacking import allow_bytes
    from train.run import advice

    if images < 1:
        raise UserError(f"--images must be at least 1, got {images}.")
    allow_pixels(max_pixels)
    allow_bytes(max_unpacked_bytes)
    probed = advice.starting_from(
        data, init, model=model, image_size=image_size, seed=seed
    )
    limits = {"max_pixels": max_pixels, "max_unpacked_bytes": max_unpacked_bytes}
    probed = replace(probed, input=replace(probed.input, **limits))
    with Console(quiet=quiet, force_jupyter=False).status("probing"):
        found = advice.advise(probed, images=images)
    figures = {
        "method": found.method,
        "reason": found.reason,
        "accuracy": found.accuracy["weights"],
        "gain": found.gain,
        "images": found.images,
        "classes": found.classes,
        "least": found.least,
    }
    title = f"{probed.network.model} ({init}) for {data}"
    recipe, config = recommended(found.method, probed)
    return AdviseResult(title, figures, {}, found, probed, recipe, config)


def recommended(method: str, probed: Config) -> tuple[str, Config]:
    """The name of the recipe that follows an advice, and its config for the images.

    Args:
      method: `features`, `fine_tune` or `scratch`.
      probed: the config that the weights were probed with.
    """
    recipe = recipes.load(_RECIPES[method])
    usual, network, images = recipe.config, probed.network, probed.input
    config = replace(
        usual,
        input=replace(images, batch_size=usual.input.batch_size),
        network=replace(network, init="" if method == "scratch" else network.init),
    )
    if usual.input.load_size:
        size = round(images.image_size / images.crop_pct)
        config = replace(config, input=replace(config.input, load_size=size))
    return recipe.name, config


def _words(value: Any) -> list[str]:
    """A flag's value as words of a command line."""
    if isinstance(value, dict):
        value = [
            f"{k}={tuple(x) if isinstance(x, list) else x}".replace(" ", "")
            for k, x in value.items()
        ]
    return list(map(str, value if isinstance(value, list) else [value]))


def advice_table(title: str, advice: Advice) -> Table:
    """The measurements behind an advice, and the recommendation.

    Args:
      title: names the images and the weights.
      advice: the measurements and the recommendation.
    """
    table = Table("", "", title=literal(title, "table.title"), title_justify="left")
    table.add_row("training images", f"{advice.images:,}")
    table.add_row("classes", f"{advice.classes:,}")
    table.add_row("images of the smallest class", f"{advice.least:,}")
    table.add_section()
    means, held_out = advice.probed
    for name, share in advice.accuracy.items():
        table.add_row(f"nearest mean, {name}", f"{percent(share)} of {held_out:,}")
    low, high = advice.interval
    table.add_row(
        "of the weights, in 95 of 100 cases", f"{100 * low:.0f} to {100 * high:.0f} %"
    )
    if held_out < _FEW:
        table.add_row("", f"{held_out} held-out images are few: the advice is a guess")
    table.add_row("errors that the weights avoid", percent(max(advice.gain, 0)))
    table.caption = f"The class means are of {means:,} images."
    table.caption_justify = "left"
    table.add_section()
    table.add_row("recommended", advice.method)
    table.add_row("because", literal(advice.reason))
    table.add_row("flags", literal(advice.flags))
    return table


def trial_table(results: Mapping[str, Json]) -> Table:
    """The trial runs, one row per kind of transfer.

    Args:
      results: maps the kind's name to the result of its run.
    """
    table = Table("", "accuracy", "loss", "steps", "training", title_justify="left")
    table.title = "Trial runs"
    best = max(results.values(), key=lambda result: result["accuracy"])
    for name, result in results.items():
        table.add_row(
            f"{name} (best)" if result is best else name,
            percent(result["accuracy"]),
            f"{result['loss']:.4f}",
            f"{result['steps']:,}",
            duration(result["seconds"]),
        )
    return table
