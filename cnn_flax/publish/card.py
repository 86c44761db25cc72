"""The model card: what weights are, how images are prepared, how good they are."""

from collections.abc import Mapping
from typing import Any

from cnn_flax.info import model_info
from cnn_flax.weights.identify import IdentifiedWeights

__all__ = ["model_card"]

# Figures of a run's result, what the card calls them, and how it writes them.
_FIGURES = {
    "accuracy": ("accuracy", "{:.2%}"),
    "top5_accuracy": ("top-5 accuracy", "{:.2%}"),
    "loss": ("loss", "{:.4f}"),
    "calibration_error": ("calibration error", "{:.4f}"),
    "test_images": ("images", "{:,}"),
}


def model_card(
    weights: IdentifiedWeights,
    config: Mapping[str, Any],
    license: str,
    repository: str | None,
    result: Mapping[str, Any],
) -> str:
    """Returns the text of `README.md`.

    Args:
      weights: what is published.
      config: what `config.json` holds.
      license: the licence's identifier on the Hub.
      repository: the id, or None.
      result: the figures of a run, or nothing.
    """
    name, images = weights.name, config["pretrained_cfg"]
    is_timm = "classifier" in images
    where = repository or "OWNER/NAME"
    library = "timm" if is_timm else "cnn_flax"
    channels, size, _ = images["input_size"]
    names = config.get("label_names", [])
    parts = [
        "---",
        "tags:",
        "- image-classification",
        *(f"- {tag}" for tag in dict.fromkeys((library, "cnn_flax", "jax"))),
        f"library_name: {library}",
        "pipeline_tag: image-classification",
        f"license: {license}",
        "---",
        f"# {where.rpartition('/')[2]}",
        "",
        f"`{name}` ({model_info(name).paper}), {config['num_classes']} classes.",
        "",
        "```python",
        "import cnn_flax",
        "",
        f'model, variables = cnn_flax.load_pretrained("{name}", "hf-hub:{where}")',
        "```",
        "",
    ]
    if is_timm:
        parts += [
            "```python",
            "import timm",
            "",
            f'model = timm.create_model("hf-hub:{where}", pretrained=True)',
            "```",
            "",
        ]
    if result:
        parts += [*_figures(result), ""]
    resized = "both sides" if images["crop_mode"] == "squash" else "short side"
    parts += [
        "## Images",
        "",
        f"{channels} channels, {resized} resized to {weights.resize} px "
        f"({images['interpolation']}), the central {size} x {size} px, scaled to "
        f"[0, 1], mean {_numbers(images['mean'])}, standard deviation "
        f"{_numbers(images['std'])}.",
        "",
    ]
    if names and len(names) <= 100:
        classes = ", ".join(f"{i} {_plain(n)}" for i, n in enumerate(names))
        parts += ["## Classes", "", classes, ""]
    return "\n".join(parts)


def _figures(result: Mapping[str, Any]) -> list[str]:
    rows = [
        f"| {title} | {form.format(result[key])} |"
        for key, (title, form) in _FIGURES.items()
        if isinstance(result.get(key), int | float)
        and (key != "top5_accuracy" or result.get("classes", 0) > 5)
    ]
    split = result.get("split")
    title = f"Figures on `{_plain(split)}`" if isinstance(split, str) else "Figures"
    return [f"## {title}", "", "| figure | value |", "| --- | --- |", *rows]


def _numbers(values: Any) -> str:
    return "(" + ", ".join(f"{x:g}" for x in values) + ")"


def _plain(text: str) -> str:
    """A name without what Markdown or a line's end would make of it."""
    return "".join(c if c.isprintable() and c not in "`|<>*_[]" else " " for c in text)
