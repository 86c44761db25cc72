"""README's sheet of Mixup and CutMix with their labels.

`python -m benchmarks.pages.mixing` writes `docs/pictures/cutmix.jpg`.
"""

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure
from skimage import data

from benchmarks.pages.folders import PICTURES
from cnn_flax.augment import cutmix, mixup, resize

_PATH = PICTURES / "cutmix.jpg"
_NAMES = ("astronaut", "cat", "espresso", "rocket")
_SIZE = 224


def main() -> None:
    """Draws the photographs, then the outputs of CutMix and Mixup."""
    images, labels = _photographs(), jnp.arange(len(_NAMES))
    rows = {
        "images": (images, jnp.eye(len(_NAMES))),
        "cutmix": cutmix(jax.random.key(3), images, labels, num_classes=len(_NAMES)),
        "mixup": mixup(
            jax.random.key(3), images, labels, alpha=1.0, num_classes=len(_NAMES)
        ),
    }
    figure = Figure(figsize=(8, 6.9), dpi=100, layout="constrained")
    axes = figure.subplots(len(rows), len(_NAMES))
    for line, (name, (mixed, soft)) in zip(axes, rows.items(), strict=True):
        line[0].set_ylabel(name, fontsize=11)
        for ax, image, label in zip(line, mixed, soft, strict=True):
            ax.imshow(np.clip(image, 0, 1))
            ax.set(xticks=[], yticks=[])
            ax.set_xlabel(_text(label), fontsize=9)
            ax.spines[:].set_visible(False)
    figure.savefig(_PATH, pil_kwargs={"quality": 85})


def _photographs() -> jax.Array:
    """Central squares of four of scikit-image's photographs: `[4, 224, 224, 3]`."""
    squares = []
    for photograph in (data.astronaut(), data.chelsea(), data.coffee(), data.rocket()):
        side = min(photograph.shape[:2])
        top, left = ((length - side) // 2 for length in photograph.shape[:2])
        square = photograph[top : top + side, left : left + side]
        squares.append(resize(jnp.asarray(square / 255, jnp.float32), _SIZE))
    return jnp.stack(squares)


def _text(label: jax.Array) -> str:
    """Formats a soft label, such as "0.81 cat, 0.19 astronaut"."""
    classes = np.argsort(-np.asarray(label))
    return ", ".join(f"{label[k]:.2f} {_NAMES[k]}" for k in classes if label[k] > 0)


if __name__ == "__main__":
    main()
