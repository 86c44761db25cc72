"""A folder in the Hub's form: `model.safetensors`, `config.json`, `README.md`.

`config.json` is timm's (https://huggingface.co/docs/timm, `timm/models/_hub.py`), with
what our model needs under "cnn_flax". Where timm has the net, the parameters have its
names, so that `timm.create_model("hf-hub:ID", pretrained=True)` loads them; otherwise
ours.
"""

import json
import pathlib
from typing import Any

import numpy as np

import cnn_flax
from cnn_flax.publish.card import model_card
from cnn_flax.publish.timm_form import TimmForm, timm_form
from cnn_flax.weights.class_names import class_names
from cnn_flax.weights.convert import to_dialect
from cnn_flax.weights.identify import IdentifiedWeights
from cnn_flax.weights.native import as_bytes
from cnn_flax.weights.pretrained import load_identified
from cnn_flax.weights.runs import read_record
from cnn_flax.weights.variables import Sizes, flatten, sizes
from cnn_flax.whole_files import write_whole

__all__ = ["PublishError", "write_folder"]

# Not of the architecture.
_NOT_KEPT = ("num_classes", "dtype", "bn_axis_name")


class PublishError(ValueError):
    """Weights cannot be published as asked; the message says what can."""


def write_folder(
    weights: IdentifiedWeights,
    folder: pathlib.Path,
    *,
    license: str | None = None,
    repository: str | None = None,
) -> dict[str, Any]:
    """Writes weights as a folder of the Hub; existing files are overwritten.

    Args:
      weights: what `cnn_flax.weights.identify.identify_weights` returns.
      folder: the folder, which is created.
      license: the licence's identifier on the Hub, such as "apache-2.0"; by default
        that of the published weights.
      repository: the id that the model card says, `owner/name`.

    Returns:
      What `config.json` holds.

    Raises:
      PublishError: if no licence is known, or the folder cannot be written.
      WeightsError: if the weights cannot be loaded.
    """
    entry = weights.entry if weights.certain else None
    license = license or (entry.license if entry else None)
    if not license:
        raise PublishError(
            "Nothing says under which licence these weights are: --license names it, "
            "such as apache-2.0, cc-by-4.0 or other."
        )
    name, fields = weights.name, dict(weights.fields)
    if weights.path.is_dir():
        fields = dict(read_record(weights.path)["model"]["fields"])
    fields = {k: v for k, v in fields.items() if k not in _NOT_KEPT}
    _, loaded = load_identified(weights)
    flat = {path: np.asarray(x) for path, x in flatten(loaded).items()}
    found = sizes(name, flat, **fields)
    form = timm_form(name, fields)
    arrays = to_dialect(form.dialect, loaded) if form else flat
    config = _config(weights, form, found, fields)
    card = model_card(weights, config, license, repository, result_of(weights))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        metadata = {"model": name, "format": "pt"}
        write_whole(
            {
                folder / "model.safetensors": as_bytes(arrays, metadata),
                folder / "config.json": f"{json.dumps(config, indent=2)}\n".encode(),
                folder / "README.md": card.encode(),
            }
        )
    except OSError as error:
        raise PublishError(f"{folder} cannot be written: {error.strerror}.") from error
    return config


def result_of(weights: IdentifiedWeights) -> dict[str, Any]:
    """The final figures of a run; empty for other weights and for runs without any.

    Raises:
      PublishError: if they cannot be read.
    """
    path = weights.path / "result.json"
    if not path.is_file():
        return {}
    try:
        result = json.loads(path.read_text("utf-8"))
    except (OSError, RecursionError, ValueError) as error:
        raise PublishError(f"{path} cannot be read: it is damaged.") from error
    return result if isinstance(result, dict) else {}


def _config(
    weights: IdentifiedWeights,
    form: TimmForm | None,
    found: Sizes,
    fields: dict[str, Any],
) -> dict[str, Any]:
    size, channels = weights.image_size, found.in_channels
    mean, std = (
        list(x) * channels if len(x) == 1 else list(x)
        for x in (weights.mean, weights.std)
    )
    names = class_names(weights, found.num_classes)
    return {
        "architecture": weights.name,
        "num_classes": found.num_classes,
        **({"label_names": names} if names else {}),
        **({} if channels == 3 else {"model_args": {"in_chans": channels}}),
        "pretrained_cfg": {
            "input_size": [channels, size, size],
            "fixed_input_size": False,
            "interpolation": weights.interpolation,
            "crop_pct": weights.crop_pct,
            "crop_mode": weights.crop_mode,
            "mean": mean,
            "std": std,
            "num_classes": found.num_classes,
            "custom_load": False,
            **(
                {"first_conv": form.first_conv, "classifier": form.classifier}
                if form
                else {}
            ),
        },
        "cnn_flax": {"version": cnn_flax.__version__, "fields": fields},
    }
