"""`cnn-flax`: inspects models, converts weights, classifies images, and trains."""

import argparse
import importlib
import io
import pathlib
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import NoReturn

import jax
import numpy as np
from rich.console import Console
from rich.table import Table

import cnn_flax
from cnn_flax.analysis.receptive_field import ReceptiveField, pixels
from cnn_flax.export import ExportError
from cnn_flax.export import command as export_command
from cnn_flax.gallery import draw_sheets, row_count
from cnn_flax.info import model_info
from cnn_flax.installing import install_command
from cnn_flax.programs import load as load_programs
from cnn_flax.progress import counting
from cnn_flax.publish import PublishError
from cnn_flax.publish import command as push_command
from cnn_flax.registry import UnknownModelError, list_models, nearest
from cnn_flax.weights import (
    ImageError,
    PublishedWeights,
    WeightsError,
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

__all__ = ["main"]

_TRAIN = "cnn-flax train"
_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class UserError(ValueError):
    """The command cannot be run as given; the message says what can."""


_USER_ERRORS = (
    *(UserError, UnknownModelError, WeightsError, ImageError),
    *(ExportError, PublishError),
    ImportError,  # An extra is not installed.
)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} (See {self.prog} --help.)")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command line, by default this process's, and returns its exit code.

    0: success. 2: the command cannot be run; one line on stderr says why.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # Whatever its encoding lacks.
            stream.reconfigure(errors="backslashreplace")
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        if words[:1] == ["train"]:
            return _train(words[1:], may_restart=arguments is None)
        _run(words)
    except KeyboardInterrupt:
        return 130
    except _USER_ERRORS as error:
        message = _printable(" ".join(str(error).split()))
        print(f"cnn-flax: {message}", file=sys.stderr)
        return 2
    return 0


def _train(words: Sequence[str], *, may_restart: bool) -> int:
    """Runs a command line of the training programs; returns its exit code."""
    load_programs()
    if may_restart:  # In the same process, which comes here a second time.
        importlib.import_module("train.huge_pages").use_huge_pages()
    programs = importlib.import_module("train.commands.main")
    code = programs.main(words, _TRAIN)
    if may_restart:  # This is the process's own command line.
        programs.leave(code)
    return code


def _run(words: Sequence[str]) -> None:
    parser, commands = _parsers()
    first = words[0] if words else "--help"
    if not first.startswith("-") and first not in commands:
        raise UserError(
            f"There is no command {first!r}. {nearest(first, commands)} "
            f"There are: {', '.join(commands)}."
        )
    options, rest = parser.parse_known_args(words or ["--help"])
    if rest:
        flags = _options(commands[first])
        raise UserError(
            f"cnn-flax {first} does not take {rest[0]!r}. {nearest(rest[0], flags)}"
        )
    options.run(options)


def _options(command: argparse.ArgumentParser) -> list[str]:
    return [option for action in command._actions for option in action.option_strings]


def _parsers() -> tuple[_Parser, dict[str, argparse.ArgumentParser]]:
    parser = _Parser(prog="cnn-flax", description=__doc__)
    parser.add_argument("--version", action="version", version=cnn_flax.__version__)
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    def add(run: Callable[[argparse.Namespace], None], name: str, text: str):
        command = commands.add_parser(
            name, help=text, description=f"{text}.", allow_abbrev=False
        )
        command.set_defaults(run=run)
        return command

    command = add(_list, "list", "Lists the models")
    command.add_argument(
        "pattern",
        nargs="?",
        default="*",
        help='such as "resnet*" (default: all models)',
    )

    command = add(_info, "info", "Shows a model's facts and its published weights")
    command.add_argument("model")

    command = add(_summary, "summary", "Shows a model's blocks and their cost")
    command.add_argument("model")
    command.add_argument(
        "--image-size",
        metavar="PX",
        help="image size, such as 224 or 192x256 (height x width); by default the size "
        "that the model is trained at",
    )

    command = add(
        _convert, "convert", "Converts weights between torch's names and ours"
    )
    command.add_argument(
        "source",
        metavar="IN",
        help="a file of weights (safetensors, .npz, .pth) with torch's names or ours, "
        "or the folder of a run",
    )
    command.add_argument(
        "out", metavar="OUT", type=pathlib.Path, help="the .safetensors file to write"
    )
    command.add_argument("--model", help="the model of the weights, if IN does not say")
    command.add_argument(
        "--names",
        choices=("ours", "torch"),
        help="whose names to write; by default ours for a file with torch's names, "
        "and torch's for other weights, if there are any for the model",
    )
    command.add_argument("--force", action="store_true", help="overwrite OUT")

    text = "Writes a model with its weights for another runtime"
    export_command.add_flags(add(_export, "export", text))

    command = add(_predict, "predict", "Classifies images")
    command.add_argument("model")
    command.add_argument("images", metavar="IMAGE", nargs="+")
    command.add_argument(
        "--weights",
        metavar="FILE",
        help="a file or folder of weights, or an id on the Hugging Face Hub; by "
        "default the first published ones, downloaded",
    )
    command.add_argument(
        "--entry",
        metavar="SOURCE",
        help="the published weights whose preprocessing to use, by words of their "
        "source in `cnn-flax info MODEL`; by default detected from the file",
    )
    command.add_argument(
        "--top", metavar="N", type=int, default=5, help="classes per image (5)"
    )
    command.add_argument(
        "--max-pixels",
        metavar="N",
        type=int,
        default=0,
        help="allow images of up to N pixels, if that is more than Pillow's limit",
    )

    text = "Publishes weights on the Hugging Face Hub, or writes its folder"
    push_command.add_flags(add(_push, "push", text))

    command = add(_gallery, "gallery", "Draws each augmentation's effect on an image")
    command.add_argument("image", metavar="IMAGE")
    command.add_argument(
        "--out",
        metavar="DIR",
        type=pathlib.Path,
        required=True,
        help="the folder to draw into: operations.png, random.png, policies.png",
    )
    # For the list of commands: `_train` takes its words, `--help` too.
    commands.add_parser("train", help=f"Trains models: `{_TRAIN}` lists the recipes")
    return parser, dict(commands.choices)


# The commands.


def _list(options: argparse.Namespace) -> None:
    names = list_models(options.pattern)
    if not names:
        word = options.pattern.strip("*?")
        raise UserError(
            f"No model matches {options.pattern!r}. {nearest(word, list_models())}"
        )
    table = Table("model", "px", "weights", "paper")
    for name in names:
        info = model_info(name)
        weights = str(len(info.weights) or "")
        table.add_row(name, str(info.image_size), weights, _citation(info.paper))
    _print(table)


def _citation(paper: str) -> str:
    """Authors and year of a paper: at most two authors are named."""
    authors, year, *_ = re.split(r" (\d{4})\b", paper, maxsplit=1)
    names = re.split(r", | and ", authors)
    return f"{' and '.join(names) if len(names) < 3 else names[0] + ' et al.'} {year}"


def _info(options: argparse.Namespace) -> None:
    info = model_info(options.model)
    grid = Table.grid(padding=(0, 2))
    grid.add_row("model", info.name)
    grid.add_row("file", f"cnn_flax/models/{info.family}.py")
    grid.add_row("paper", info.paper)
    grid.add_row("parameters", f"{info.parameters:,}")
    grid.add_row("depth", f"{info.depth} weighted layers")
    grid.add_row("image size", f"{info.image_size} px")
    _print(grid)
    if not info.weights:
        _print("No weights are published for it.")
        return
    table = Table(
        *("published weights", "px", "resized", "mean, std", "top-1", "licence"),
        caption="By default the first are downloaded.",
        caption_justify="left",
    )
    table.columns[0].overflow = "fold"
    for entry in info.weights:
        table.add_row(
            entry.source,
            str(entry.image_size),
            f"{entry.resize} {entry.interpolation}",
            _normalization(entry),
            "" if entry.imagenet_top1 is None else f"{entry.imagenet_top1:.2f}",
            entry.license or "",
        )
    _print(table)


def _normalization(entry: PublishedWeights) -> str:
    if (entry.mean, entry.std) == (_IMAGENET_MEAN, _IMAGENET_STD):
        return "ImageNet's"
    # All others in use have equal values in all channels.
    return f"{entry.mean[0]:.3f}, {entry.std[0]:.3f}"


def _summary(options: argparse.Namespace) -> None:
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
        summary = cnn_flax.summary(model, (height, width), ignore_global=True)
    except ValueError as error:  # An image that is too small for the model.
        raise UserError(str(error)) from error
    table = Table("block", "output")
    for column in ("parameters", "multiply-adds", "receptive field"):
        table.add_column(column, justify="right")
    for block in summary.blocks:
        shape = block.output_shape
        table.add_row(
            block.name,
            "training only" if shape is None else " x ".join(map(str, shape)),
            f"{block.parameters:,}",
            f"{block.multiply_adds:,}",
            _field(block.receptive_field),
        )
    table.add_section()
    table.add_row("total", "", f"{summary.parameters:,}", f"{summary.multiply_adds:,}")
    _print(table)
    _print(
        f"One image of {height} x {width} px in evaluation; multiply-adds of "
        "convolutions and matrix products. Receptive fields are in pixels, leaving out "
        "squeeze and excitation, which sees the whole image."
    )


def _field(field: ReceptiveField | None) -> str:
    if field is None:
        return ""
    size = pixels(field.size)
    return f"deformable, {size}" if field.data_dependent else size


def _convert(options: argparse.Namespace) -> None:
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
    _print(
        f"{out}: {name}, {len(converted)} arrays, {numbers:,} numbers, {whose} names."
    )


def _export(options: argparse.Namespace) -> None:
    _print(export_command.run(options))


def _predict(options: argparse.Namespace) -> None:
    if options.top < 1:
        raise UserError(f"--top must be at least 1, got {options.top}.")
    name, source = options.model, options.weights
    if source and (run := _run_folder(source)):
        raise UserError(
            f"{run} is the folder of a run: {_TRAIN} predict {run} IMAGE ..."
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
            shown = "" if rank else _printable(image)
            class_name = _printable(names[k]) if names else f"class {k}"
            table.add_row(shown, class_name, str(k), f"{100 * row[k]:.2f} %")
        table.add_section()
    _print(table)
    others = ": --entry names others" if len(found.candidates) > 1 else ""
    _print(f"Images prepared as for {found.preparation}{others}.")
    if classes == IMAGENET_CLASSES and not names:
        _print(f"For the classes' names: {install_command('cli')}")
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


def _push(options: argparse.Namespace) -> None:
    _print(push_command.run(options))


def _gallery(options: argparse.Namespace) -> None:
    image = read_image(options.image)
    folder: pathlib.Path = options.out.expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with counting(row_count(), "rows") as advance:
            sheets = draw_sheets(np.asarray(image), advance)
        for name, sheet in sheets.items():
            sheet.save(folder / f"{name}.png")
            _print(f"{folder / name}.png")
    except OSError as error:
        raise UserError(f"{folder} cannot be written: {error.strerror}.") from error


def _print(content: Table | str) -> None:
    # No markup and no emoji codes, as names of files and extras contain brackets.
    console = Console(highlight=False, markup=False, emoji=False)
    if isinstance(content, str):
        console.print(_printable(content), soft_wrap=True)
    else:
        console.print(content)


def _printable(text: str) -> str:
    """Text with escapes for what would move the cursor or cannot be encoded.

    As `train.console.printable`, which is not a part of the library.
    """
    unprintable = "[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
    return re.sub(unprintable, lambda match: ascii(match[0])[1:-1], text)


if __name__ == "__main__":
    sys.exit(main())
