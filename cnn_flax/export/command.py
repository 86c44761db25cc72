"""`cnn-flax export`: its flags and its body."""

import argparse
import pathlib

from cnn_flax.export.errors import ExportError
from cnn_flax.export.files import FORMATS, export_file
from cnn_flax.export.stablehlo import PLATFORMS
from cnn_flax.registry import list_models, nearest
from cnn_flax.weights.identify import IdentifiedWeights, identify_weights

__all__ = ["add_flags", "find_weights", "run"]

_NOT_OFFERED = ("tflite", "saved_model")


def add_flags(command: argparse.ArgumentParser) -> None:
    """Adds the flags of the command."""
    command.add_argument(
        "source",
        metavar="MODEL|RUN",
        help="a model, for its published weights or those of --weights; the folder of "
        "a run; or a file of weights",
    )
    command.add_argument(
        "--out", metavar="FILE", type=pathlib.Path, required=True, help="what to write"
    )
    command.add_argument(
        "--format",
        choices=(*FORMATS, *_NOT_OFFERED),
        required=True,
        help="stablehlo: a program that JAX alone reads; onnx: a graph for ONNX "
        "Runtime and others. tflite and saved_model are not offered",
    )
    command.add_argument(
        "--weights", metavar="FILE", help="a file or an id on the Hugging Face Hub"
    )
    command.add_argument(
        "--inside",
        choices=("nothing", "normalization", "resizing"),
        default="nothing",
        help="what the program does to images before the net. nothing: it takes those "
        "that cnn_flax.preprocess returns; normalization: uint8 images of the net's "
        "size; resizing: uint8 images of any size",
    )
    command.add_argument(
        "--batch-size", metavar="N", type=int, help="images per call (any number)"
    )
    command.add_argument(
        "--image-size",
        metavar="PX",
        type=int,
        help="height and width of the net's images; by default as for the weights",
    )
    command.add_argument(
        "--dtype",
        choices=("float32", "bfloat16"),
        default="float32",
        help="dtype of the computation; weights stay float32",
    )
    command.add_argument(
        "--platforms",
        default=",".join(PLATFORMS),
        help=f"where a StableHLO program runs ({','.join(PLATFORMS)})",
    )
    command.add_argument("--force", action="store_true", help="overwrite FILE")


def find_weights(source: str, file: str | None = None) -> IdentifiedWeights:
    """The weights that a command's first argument names.

    Args:
      source: a model, the folder of a run, or a file of weights.
      file: a file or an id with the weights of a model, or None.

    Raises:
      ExportError: if there is no such model, run or file.
      WeightsError: if the weights cannot be read.
    """
    if source in list_models():
        return identify_weights(source, file)
    if file is not None:
        raise ExportError(
            f"--weights goes with a model, and {source} is none. "
            f"{nearest(source, list_models())}"
        )
    if "/" not in source and not pathlib.Path(source).expanduser().exists():
        raise ExportError(
            f"There is no model, run or file {source}. {nearest(source, list_models())}"
        )
    return identify_weights(None, source)


def run(options: argparse.Namespace) -> str:
    """Runs the command; returns what to print.

    Raises:
      ExportError: if the command cannot be run.
      WeightsError: if the weights cannot be read.
    """
    if options.format in _NOT_OFFERED:
        raise ExportError(
            f"--format {options.format} is not offered: TensorFlow 2.21, the newest, "
            "does not read the StableHLO of JAX's jax2tf, the one converter. There are "
            f"{' and '.join(FORMATS)}; ONNX Runtime runs on phones as well."
        )
    out: pathlib.Path = options.out.expanduser()
    if out.exists() and not options.force:
        raise ExportError(f"{out} exists; --force overwrites it.")
    weights = find_weights(options.source, options.weights)
    metadata = export_file(
        weights,
        out,
        format=options.format,
        dtype=options.dtype,
        platforms=options.platforms.split(","),
        inside=options.inside,
        batch_size=options.batch_size,
        image_size=options.image_size,
    )
    size = f"{out.stat().st_size / 1e6:,.1f} MB"
    text = f"{out}: {weights.name} of {weights.preparation}, {size}."
    if options.format == "stablehlo":
        text += (
            f" It runs on {', '.join(options.platforms.split(','))}. JAX "
            f"{metadata['jax']} reads it, and the releases until "
            f"{metadata['readable_until']}. {out}.json holds classes and preparation."
        )
    return text
