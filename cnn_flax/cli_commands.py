"""The commands of `cnn-flax` that need JAX: one function each."""

import argparse
import pathlib
from collections.abc import Iterable

import jax
import numpy as np
from rich.table import Table

import cnn_flax
from cnn_flax.analysis.receptive_field import ReceptiveField, pixels
from cnn_flax.console import TRAIN, UserError, print_out, printable
from cnn_flax.export import command as export_command
from cnn_flax.gallery import draw_sheets, row_count
from cnn_flax.info import model_info
from cnn_flax.installing import install_command
from cnn_flax.progress import counting
from cnn_flax.publish import command as push_command
from cnn_flax.weights import (
    ImageError,
    PublishedWeights,
    from_torch,
    preprocess,
    read_checkpoint,
    to_torch,
)
from cnn_flax.weights.class_names import IMAGENET_CLASSES, class_names
from cnn_flax.weights.dialects import find_dialects
from cnn_flax.weights.identify import (
    IdentifiedWeights,
    identify_weights,
)
from cnn_flax.weights.native import from_native, is_native, write
from cnn_flax.weights.preprocessing import allow_pixels, read_image
from cnn_flax.weights.pretrained import load_identified
from cnn_flax.weights.runs import read_run
from cnn_flax.weights.sources import find
from cnn_flax.weights.variables import flatten, sizes

__all__ = ["convert", "export", "gallery", "info", "predict", "push", "summary"]

_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def info(options: argparse.Namespace) -> None:
    """Prints a model's facts and its published weights."""
    found = model_info(options.model)
    grid = Table.grid(padding=(0, 2))
    grid.add_row("model", found.name)
    grid.add_row("file", f"cnn_flax/models/{found.family}.py")
    grid.add_row("paper", found.paper)
    grid.add_row("parameters", f"{found.parameters:,}")
    grid.add_row("depth", f"{found.depth} weighted layers")
    grid.add_row("image size", f"{found.image_size} px")
    print_out(grid)
    if not found.weights:
        print_out("No weights are published for it.")
        return
    table = Table(
        *("published weights", "px", "resized", "mean, std", "top-1", "licence"),
        caption="By default the first are downloaded.",
        caption_justify="left",
    )
    table.columns[0].overflow = "fold"
    for entry in found.weights:
        table.add_row(
            entry.source,
            str(entry.image_size),
            f"{entry.resize} {entry.interpolation}",
            _normalization(entry),
            "" if entry.imagenet_top1 is None else f"{entry.imagenet_top1:.2f}",
            entry.license or "",
        )
    print_out(table)


def _normalization(entry: PublishedWeights) -> str:
    if (entry.mean, entry.std) == (_IMAGENET_MEAN, _IMAGENET_STD):
        return "ImageNet's"
    # All others in use have equal values in all channels.
    return f"{entry.mean[0]:.3f}, {entry.std[0]:.3f}"


def summary(options: argparse.Namespace) -> None:
    """Prints a model's blocks and their cost."""
    size = [str(model_info(options.model).image_size)]
    if options.image_size is not None:
        size = options.image_size.lower().split("x")
    if len(size) > 2 or not all(n.isdecimal() and int(n) > 0 for n in size):
        raise UserError(
            "--image-size is a positive number of pixels, or two separated by an x, "
            f"such as 192x256; got {options.image_size!r}."
        )
    height, width = int(size[0]), int(size[-1])
    model = cnn_flax.create_model(options.model)
    try:
        found = cnn_flax.summary(model, (height, width), ignore_global=True)
    except ValueError as error:  # An image that is too small for the model.
        raise UserError(str(error)) from error
    table = Table("block", "output")
    for column in ("parameters", "multiply-adds", "receptive field"):
        table.add_column(column, justify="right")
    for block in found.blocks:
        shape = block.output_shape
        table.add_row(
            block.name,
            "training only" if shape is None else " x ".join(map(str, shape)),
            f"{block.parameters:,}",
            f"{block.multiply_adds:,}",
            _field(block.receptive_field),
        )
    table.add_section()
    table.add_row("total", "", f"{found.parameters:,}", f"{found.multiply_adds:,}")
    print_out(table)
    print_out(
        f"One image of {height} x {width} px in evaluation; multiply-adds of "
        "convolutions and matrix products. Receptive fields are in pixels, leaving out "
        "squeeze and excitation, which sees the whole image."
    )


def _field(field: ReceptiveField | None) -> str:
    if field is None:
        return ""
    size = pixels(field.size)
    return f"deformable, {size}" if field.data_dependent else size


def convert(options: argparse.Namespace) -> None:
    """Converts weights between torch's names and ours."""
    out: pathlib.Path = options.out.expanduser()
    if out.suffix != ".safetensors":
        raise UserError(f"OUT must be a .safetensors file, got {out}.")
    if out.exists() and not options.force:
        raise UserError(f"{out} exists; --force overwrites it.")
    found = identify_weights(options.model, options.source)
    name = found.name
    if found.path.is_dir():
        variables, was_ours = read_run(name, found.path).variables, True
    else:
        arrays = read_checkpoint(found.path)
        was_ours = is_native(arrays)
        variables = (from_native if was_ours else from_torch)(name, arrays)
    metadata = {"model": name}
    # With other names and in another file, the weights' origin is no longer detectable.
    if found.entry and found.certain:
        metadata["source"] = found.entry.source

    has_torch_names = bool(find_dialects(name))
    names = options.names or ("torch" if was_ours and has_torch_names else "ours")
    converted = flatten(variables) if names == "ours" else to_torch(name, variables)
    try:
        write(out, converted, metadata)
    except OSError as error:
        raise UserError(f"{out} cannot be written: {error.strerror}.") from error
    whose = "our" if names == "ours" else "torch's"
    numbers = sum(x.size for x in converted.values())
    print_out(
        f"{out}: {name}, {len(converted)} arrays, {numbers:,} numbers, {whose} names."
    )


def export(options: argparse.Namespace) -> None:
    """Writes a model with its weights for another runtime."""
    print_out(export_command.run(options))


def predict(options: argparse.Namespace) -> None:
    """Classifies images."""
    if options.top < 1:
        raise UserError(f"--top must be at least 1, got {options.top}.")
    name, source = options.model, options.weights
    if source and (run := _run_folder(source)):
        raise UserError(
            f"{run} is the folder of a run: {TRAIN} predict {run} IMAGE ..."
        )
    found = identify_weights(name, source, entry=options.entry)
    prepare = preprocess(found)
    allow_pixels(options.max_pixels)
    # Before the network is built, so that a mistyped file name is reported at once.
    images: dict[str, np.ndarray] = {}
    errors: list[str] = []
    for image in dict.fromkeys(options.images):
        try:
            images[image] = prepare(image)
        except ImageError as error:
            errors.append(str(error))
    if not images:
        raise UserError(" ".join(errors))
    rows = _probabilities(found, images.values())

    classes = rows.shape[1]
    names = class_names(found, classes)
    table = Table("image", "class", "index", "probability")
    table.columns[0].overflow = "fold"
    for image, row in zip(images, rows, strict=True):
        for rank, k in enumerate(np.argsort(-row, kind="stable")[: options.top]):
            shown = "" if rank else printable(image)
            class_name = printable(names[k]) if names else f"class {k}"
            table.add_row(shown, class_name, str(k), f"{100 * row[k]:.2f} %")
        table.add_section()
    print_out(table)
    others = ": --entry names others" if len(found.candidates) > 1 else ""
    print_out(f"Images prepared as for {found.preparation}{others}.")
    if classes == IMAGENET_CLASSES and not names:
        print_out(f"For the classes' names: {install_command('cli')}")
    if errors:
        raise UserError(" ".join(errors))


def _run_folder(source: str) -> pathlib.Path | None:
    """The folder of a run of ours, if the source is one."""
    folder = pathlib.Path(source).expanduser()
    return folder if folder.is_dir() and find(folder).is_dir() else None


def _probabilities(
    weights: IdentifiedWeights, images: Iterable[np.ndarray]
) -> np.ndarray:
    """Probabilities `[n, K]` of the classes of n images."""
    name, path = weights.name, weights.path
    model, variables = load_identified(weights)
    found = sizes(name, flatten(variables), **weights.fields)
    if found.num_classes == 0 or found.in_channels != 3:
        raise UserError(
            f"{path} has {found.num_classes} classes and takes images of "
            f"{found.in_channels} channels; predict needs at least one class and 3 "
            "channels."
        )

    predict = cnn_flax.predict_fn(model, variables)
    # One by one: one compilation for any number of files.
    return np.stack([jax.nn.softmax(predict(image[None])[0]) for image in images])


def push(options: argparse.Namespace) -> None:
    """Publishes weights on the Hugging Face Hub, or writes its folder."""
    print_out(push_command.run(options))


def gallery(options: argparse.Namespace) -> None:
    """Draws each augmentation's effect on an image."""
    image = read_image(options.image)
    folder: pathlib.Path = options.out.expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with counting(row_count(), "rows") as advance:
            sheets = draw_sheets(np.asarray(image), advance)
        for name, sheet in sheets.items():
            sheet.save(folder / f"{name}.png")
            print_out(f"{folder / name}.png")
    except OSError as error:
        raise UserError(f"{folder} cannot be written: {error.strerror}.") from error
