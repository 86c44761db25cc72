"""`python -m train`: lists the recipes, runs them, evaluates runs and predicts.

python -m train                               lists the recipes
python -m train RECIPE --out DIR [--FLAG ..]  runs one, or goes on with it
python -m train RECIPE --help                 says which flags there are
python -m train evaluate DIR [--data ..]      evaluates a run
python -m train evaluate MODEL --data ..      evaluates published weights, or a file's
python -m train compare DIR DIR ..            draws runs over each other
python -m train predict DIR IMAGE ...         classifies images by a run
python -m train pseudo-label DIR --data ..    labels images by a run, into a file
python -m train advise --data .. --init ..    says which kind of transfer suits
python -m train search-scaling RECIPE [..]    tries EfficientNet's scalings
python -m train noisy-student RECIPE --out DIR [--FLAG ..]
                                              trains on a model's own labels, in rounds
"""

if __name__ == "__main__":
    from train.memory import use_huge_pages

    use_huge_pages()  # Before anything is imported that takes long.

import difflib
import logging
import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.console import Console
from rich.table import Table
from tyro.conf import OmitArgPrefixes, Positional

from train import recipes
from train.compilation import use_compilation_cache
from train.config import Config
from train.errors import Interrupted, NotFiniteError, StorageError, UserError
from train.noisy_student import NoisyStudent

__all__ = ["main"]


@dataclass(frozen=True)
class Run:
    """Runs a recipe, or goes on with a run that was stopped."""

    out: Path
    """Folder of the run: a new one, or the one of the run to go on with."""
    dry_run: bool
    """Build and compile everything, say what it takes, and train and write nothing."""
    config: Annotated[Config, OmitArgPrefixes]
    """What to run."""


@dataclass(frozen=True)
class Evaluate:
    """Evaluates a run's last checkpoint, or a model with weights from elsewhere."""

    what: Positional[str]
    """Folder of a run, or a model, one of cnn_flax.list_models()."""
    data: str | None = None
    """Where the images come from; by default as in the run."""
    split: Literal["train", "val", "test"] | None = None
    """Which of the images; by default as in the run, or test."""
    weights: str | None = None
    """The model's: a file, a folder, or an id on the Hub; by default as published."""
    batch_size: int | None = None
    """Images a step; by default as in the run, or 64. It changes no figure."""
    ema: bool = False
    """Whether to take the running means of the weights, of a run with --ema-decay."""
    old_head: bool = False
    """Whether to take the head of the task before, of a run with --transfer lwf; --data
    is that task's."""


@dataclass(frozen=True)
class Compare:
    """Draws runs over each other, and prints how they did."""

    runs: Positional[tuple[Path, ...]]
    """Folders of the runs."""
    out: Path = Path("comparison.png")
    """The picture."""


@dataclass(frozen=True)
class Predict:
    """Classifies images by a run's last checkpoint."""

    run: Positional[Path]
    """Folder of the run."""
    images: Positional[tuple[Path, ...]]
    """Image files."""
    ema: bool = False
    """Whether to take the running means of the weights, of a run with --ema-decay."""


@dataclass(frozen=True)
class PseudoLabel:
    """Labels images by a run's last checkpoint, into a file to train on.

    Started again with the same flags, it goes on where it was stopped. The file is
    NumPy's: probabilities float32 [n, K], an image a row, NaN where one cannot be read;
    FILE.json beside it says what they are. Whether labels are soft or hard, and which
    are used, is decided in training: --pseudo-labels FILE.
    """

    run: Positional[Path]
    """Folder of the run: the teacher."""
    data: str
    """The images: as for a run, files:PATH (all below a folder, without labels), or the
    word rest: the run's training images that it did not use."""
    out: Path
    """The file."""
    split: Literal["train", "val", "test"] = "train"
    """Which of the images."""
    batch_size: int | None = None
    """Images a step; by default as in the run."""
    ema: bool = False
    """Whether to take the running means of the weights, of a run with --ema-decay."""
    threads: int = 0
    """Threads that read images; by default as in the run."""


@dataclass(frozen=True)
class SearchScaling:
    """Trains every net of a grid of depth, width and resolution, of twice the work."""

    recipe: Positional[str]
    """What is scaled: a recipe of an EfficientNet."""
    out: Path = Path("runs/scaling")
    """Folder of the runs; a search that was stopped goes on there."""
    step: float = 0.2
    """Distance between neighbours in the grid."""
    tolerance: float = 0.1
    """How far from 2 the work may be."""


@dataclass(frozen=True)
class RunNoisyStudent:
    """Labels images by a model and trains the next one on them, round after round."""

    out: Path
    """Folder of all rounds: a new one, or the one of those to go on with."""
    dry_run: bool
    """Build every model, say what it takes, and train and write nothing."""
    student: Annotated[NoisyStudent, OmitArgPrefixes]
    """What to run."""


@dataclass(frozen=True)
class Advise:
    """Says whether feature extraction, fine-tuning or neither suits the images."""

    data: str
    """Where the images come from, as for a recipe."""
    init: str
    """The weights: a file, a run, an id on the Hugging Face Hub, or the word
    published."""
    model: str | None = None
    """What they are weights of; by default what they say."""
    image_size: int = 0
    """Height and width that the model sees, in pixels; 0 for the weights' own."""
    images: int = 500
    """Probe no more images than this, for the means and held out."""
    seed: int = 0
    """Decides which."""
    try_both: bool = False
    """Whether to train both ways too, for a few steps."""
    steps: int = 200
    """How many."""
    out: Path = Path("runs/advise")
    """Folder of their runs."""


_COMMANDS = (
    "advise",
    "compare",
    "evaluate",
    "noisy-student",
    "predict",
    "pseudo-label",
    "search-scaling",
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command line, by default this process's; returns its exit code.

    0: done. 1: a loss or gradient was not finite, or the disk filled up. 2: what was
    asked for cannot be done.
    128 and the signal's number: stopped by it, after saving.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    command = f"python -m train {shlex.join(words)}"
    try:
        return _dispatch(words)
    except Interrupted as stop:
        _complain(f"{stop} It is saved; to go on: {command}")
        return 128 + stop.signal
    except KeyboardInterrupt:
        _complain(f"Stopped. To go on from what was saved: {command}")
        return 130
    except NotFiniteError as error:
        _complain(" ".join([str(error), *error.__notes__]))
        return 1
    except StorageError as error:
        _complain(f"{error} Make room; to go on: {command}")
        return 1
    except ValueError as error:
        if not isinstance(error, UserError) and not isinstance(error, _weights_error()):
            raise
        _complain(str(error))
        return 2


def _dispatch(words: Sequence[str]) -> int:
    name = words[0] if words else "--help"
    if name in ("-h", "--help"):
        _list_recipes()
    elif name == "evaluate":
        _evaluate(_parse(Evaluate, words))
    elif name == "compare":
        _compare(_parse(Compare, words))
    elif name == "predict":
        _predict(_parse(Predict, words))
    elif name == "pseudo-label":
        _pseudo_label(_parse(PseudoLabel, words))
    elif name == "advise":
        _advise(_parse(Advise, words))
    elif name == "search-scaling":
        _search_scaling(_parse(SearchScaling, words))
    elif name == "noisy-student":
        _noisy_student(words)
    elif name in recipes.names():
        _run(recipes.load(name), words)
    else:
        raise _no_recipe(name, _COMMANDS)
    return 0


def _no_recipe(name: str, others: Sequence[str] = ()) -> UserError:
    known = [*others, *recipes.names()]
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.3)
    hint = f"Did you mean {near[0]}? " if near else ""
    return UserError(
        f"There is no recipe {name!r}. {hint}`python -m train` lists them."
    )


def _list_recipes() -> None:
    console = Console()
    console.print(__doc__, highlight=False, markup=False)
    table = Table("recipe", "model", "data", "gave")
    table.columns[0].no_wrap = True
    table.columns[2].overflow = "fold"
    for recipe in map(recipes.load, recipes.names()):
        config = recipe.config
        models = " > ".join(recipe.models)
        table.add_row(recipe.name, models, config.input.data, recipe.gave)
    console.print(table)


def _run(recipe: recipes.Recipe, words: Sequence[str]) -> None:
    if recipe.noisy_student:
        raise UserError(
            f"{recipe.name} is a Noisy Student; it is run by "
            f"`python -m train noisy-student {recipe.name}`."
        )
    out = Path("runs", recipe.name)
    default = Run(out=out, dry_run=False, config=recipe.config)
    command = _parse(Run, words, default=default, description=recipe.text)
    if command.dry_run:
        from train.dry_run import dry_run

        return dry_run(command.config, recipe.name, Console())
    use_compilation_cache()
    _silence_orbax()
    from train.loop import fit
    from train.report import result_table

    console = Console()
    result = fit(command.config, command.out, recipe=recipe.name, console=console)
    console.print(result_table(command.out, result))


def _evaluate(command: Evaluate) -> None:
    use_compilation_cache()
    import cnn_flax
    from cnn_flax.registry import nearest
    from train.inference import evaluate_model, evaluate_run
    from train.report import evaluation_table

    name, run = command.what, Path(command.what)
    if not run.exists() and (command.weights or name in cnn_flax.list_models()):
        if command.data is None:
            raise UserError(f"Give the images to evaluate {name} on: --data SOURCE")
        if command.ema:
            raise UserError(f"--ema is of a run; {name} is a model.")
        if command.old_head:
            raise UserError(f"--old-head is of a run; {name} is a model.")
        evaluation, source = evaluate_model(
            name,
            command.data,
            weights=command.weights,
            split=command.split or "test",
            batch_size=command.batch_size or 64,
        )
    elif command.weights:
        raise UserError(f"{run} has its own weights: leave out --weights.")
    elif not run.exists():
        near = nearest(name, cnn_flax.list_models())
        raise UserError(f"{run} holds no run. It is no model either. {near}".strip())
    else:
        evaluation, source = evaluate_run(
            run,
            command.data,
            command.split,
            batch_size=command.batch_size,
            ema=command.ema,
            old_head=command.old_head,
        )
    means = " (EMA)" if command.ema else ""
    title = f"{command.what}{means} on images of {source.spec}"
    Console().print(evaluation_table(title, evaluation, source.class_names))


def _compare(command: Compare) -> None:
    if not command.runs:
        raise UserError("No run was given: python -m train compare DIR DIR ...")
    from train.compare import compare

    compare(command.runs, command.out, Console())


def _predict(command: Predict) -> None:
    if not command.images:
        raise UserError("No image was given: python -m train predict DIR IMAGE ...")
    use_compilation_cache()
    from train.inference import predict_images
    from train.report import prediction_table

    probabilities, names = predict_images(command.run, command.images, ema=command.ema)
    Console().print(prediction_table(command.images, probabilities, names))


def _pseudo_label(command: PseudoLabel) -> None:
    if command.threads < 0:
        raise UserError(f"--threads must be at least 0, got {command.threads}.")
    use_compilation_cache()
    from train.pseudo_label import label_images, open_images
    from train.report import pseudo_label_table, say

    console = Console()
    source, opened = open_images(command.run, command.data, command.split)
    labels = label_images(
        command.run,
        source,
        command.out,
        batch_size=command.batch_size,
        ema=command.ema,
        threads=command.threads or None,
        opened=opened,
        say=partial(say, console),
    )
    title = f"{command.out}: {source.spec} by {command.run}"
    console.print(pseudo_label_table(title, labels, source))


def _advise(command: Advise) -> None:
    use_compilation_cache()
    from train.advise import advise, starting_from, try_both
    from train.report import advice_table, trial_table

    console = Console()
    config = starting_from(
        command.data,
        command.init,
        model=command.model,
        image_size=command.image_size,
        seed=command.seed,
    )
    title = f"{config.network.model} ({command.init}) for {command.data}"
    with console.status("probing"):
        advice = advise(config, images=command.images)
    console.print(advice_table(title, asdict(advice)))
    if command.try_both:
        results = try_both(config, command.out, steps=command.steps, console=console)
        console.print(trial_table(results))


def _search_scaling(command: SearchScaling) -> None:
    if command.recipe not in recipes.names():
        raise _no_recipe(command.recipe)
    recipe = recipes.load(command.recipe)
    use_compilation_cache()
    from train.report import scaling_table
    from train.scaling import search

    best, points = search(
        recipe.config,
        command.out,
        recipe=recipe.name,
        step=command.step,
        tolerance=command.tolerance,
    )
    Console().print(scaling_table(best, points))


def _noisy_student(words: Sequence[str]) -> None:
    known = {name: recipes.load(name) for name in recipes.names()}
    names = [name for name, recipe in known.items() if recipe.noisy_student]
    usage = f"noisy-student RECIPE --out DIR [--FLAG ..]; recipes: {', '.join(names)}"
    if len(words) < 2:
        raise UserError(f"Say which: python -m train {usage}.")
    if words[1] in ("-h", "--help"):
        return print(f"python -m train {usage}")
    if words[1] not in known:
        raise _no_recipe(words[1])
    recipe = known[words[1]]
    if recipe.noisy_student is None:
        raise UserError(
            f"{recipe.name} is no Noisy Student: `python -m train {recipe.name}` runs "
            f"it. These are: {', '.join(names)}."
        )
    default = RunNoisyStudent(Path("runs", recipe.name), False, recipe.noisy_student)
    command = _parse(
        RunNoisyStudent,
        [" ".join(words[:2]), *words[2:]],
        default=default,
        description=recipe.text,
    )
    if command.dry_run:
        from train.noisy_student.dry_run import dry_run

        return dry_run(command.student, recipe.name, Console())
    use_compilation_cache()
    _silence_orbax()
    from train.noisy_student.run import run
    from train.report import noisy_student_table

    facts = run(
        command.student,
        command.out,
        recipe=recipe.name,
        command=f"python -m train {shlex.join(words)}",
    )
    Console().print(noisy_student_table(facts))


def _parse(form: type, words: Sequence[str], **options):
    prog = f"python -m train {words[0]}"
    return tyro.cli(form, prog=prog, args=words[1:], **options)


def _silence_orbax() -> None:
    """It logs tracebacks of what it then raises."""
    logging.getLogger("absl").setLevel(logging.CRITICAL)


def _weights_error() -> type[ValueError]:
    from cnn_flax.weights import WeightsError

    return WeightsError


def _complain(text: str) -> None:
    print(text, file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
