"""`fit`: drives a run from its config to its result, over any number of starts."""

import contextlib
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from train import folder
from train.answers import with_answers
from train.checkpoint import KEPT, Checkpoints
from train.config import Config
from train.data import BadImages, Source, eval_batches, prefetch_to_device
from train.errors import Interrupted, NotFiniteError
from train.evaluation import Evaluation, evaluate
from train.features import with_features
from train.meter import Meter
from train.program import EvalStep, Program, build, compile_steps
from train.record import changes, check_classes, check_pseudo_labels
from train.report import RunProgress, draw, say
from train.step import TrainState
from train.streams import training_stream
from train.tensorboard import TensorBoardLog, check_installed

__all__ = ["fit"]

Json = dict[str, Any]


def fit(
    config: Config,
    run: Path,
    *,
    recipe: str = "",
    console: Console | None = None,
    opened: Source | None = None,
) -> Json:
    """Trains, or goes on with a run that was stopped, and reports.

    A run that was stopped, in whatever way, ends as one that was not: to the bit, on
    the same machine and versions.

    Args:
      config: what to run.
      run: the run's folder.
      recipe: the name of the recipe that it is of.
      console: where progress goes; None is standard output.
      opened: the set of the images without labels, where it is open already.

    Returns:
      What the run's `result.json` holds. A run that has ended is not trained again.

    Raises:
      UserError: if the config cannot be run, or the folder holds something else.
      SourceError: if the data cannot be used.
      NotFiniteError: if a loss or gradient was NaN or infinite. The last checkpoint is
        from before that.
      Interrupted: if SIGINT or SIGTERM came; the run was saved.
      StorageError: if the disk filled up. The last checkpoint is whole.
    """
    console = console or Console()
    record = folder.read_record(run)
    if record is not None:
        folder.check_same(run, record, recipe, config)
    result = folder.read_result(run)
    if result is not None:
        say(console, f"{run} has ended already.")
        return result
    if config.tensorboard:
        check_installed()

    with contextlib.ExitStack() as stack:
        if record is not None:  # Before the slow part; a new one makes no folder yet.
            stack.enter_context(folder.lock(run))
        program = build(config, recipe, opened=opened)
        folder.check_space(run, program.bytes, KEPT)
        if record is None:
            program.initial()  # Wrong weights make no folder.
            stack.enter_context(folder.lock(run))
            folder.write_record(run, program.record)
        else:
            check_classes(record, program.train)
            check_pseudo_labels(record, program.record)
            for change in changes(record, program.record):
                say(console, change)
        stack.enter_context(folder.storing(run))
        return _run(config, run, program, console)


def _run(config: Config, run: Path, program: Program, console: Console) -> Json:
    """What `fit` does once it is settled that the run is to be."""
    say(console, program.headline)
    if config.distillation.cache_teacher:
        with console.status("asking the teacher"):
            program = with_answers(config, program, run)
    with Checkpoints(run) as checkpoints:
        try:
            result, evaluation = _train(config, run, program, checkpoints, console)
        except NotFiniteError as error:
            checkpoints.wait()
            error.add_note(
                f"{run} keeps the checkpoint of step {checkpoints.latest or 0}. Try a "
                "lower --learning-rate or more --warmup-epochs, with another --out."
            )
            raise
    draw(run, program.record, evaluation, program.test, console)
    folder.write_result(run, result)
    return result


def _train(
    config: Config,
    run: Path,
    program: Program,
    checkpoints: Checkpoints,
    console: Console,
) -> tuple[Json, Evaluation]:
    """From the last checkpoint, or the beginning, to the result."""
    with console.status("compiling"):
        train_step, eval_step = compile_steps(program)
        if checkpoints.latest is None:
            state, meta = program.init(), {}
        else:
            state, meta = checkpoints.restore(program.shapes)
            state = program.hold(state)
    start = meta.get("step", 0)
    if start:
        say(console, f"Going on from step {start} of {program.steps}.")
    meter = Meter(config.input.batch_size, meta.get("meter"))
    unreadable = _unreadable(config, program, meta.get("unreadable", {}), console)
    if program.features:
        with console.status("computing the backbone's features"):
            program = with_features(config, program, run, state, unreadable)
    split = program.eval_split
    evaluation, figures = None, {}

    with (
        contextlib.closing(
            training_stream(config, program, start, unreadable)
        ) as batches,
        (TensorBoardLog if config.tensorboard else folder.MetricsLog)(
            run, start
        ) as log,
        _signals() as signals,
        RunProgress(
            console, start=start, steps=program.steps, epochs=config.epochs
        ) as progress,
    ):
        meter.start()
        for step in range(start + 1, program.steps + 1):
            state, metrics = train_step(state, next(batches), program.key)
            meter.add(step, metrics)
            progress.step()
            epoch_ends = step % program.steps_per_epoch == 0
            stop = bool(signals)
            place = {"step": step, "epoch": round(step / program.steps_per_epoch, 4)}

            if step % config.log_every == 0 or step == program.steps:
                rate = float(program.schedule(step - 1))
                line = {**place, "split": "train", **meter.line()}
                log.write({**line, "learning_rate": rate})
                progress.trained(line)
            if epoch_ends:
                meter.settle()
                evaluation, figures = _evaluate(
                    config, program, eval_step, state, unreadable["test"]
                )
                line = {**place, "split": split, **figures}
                log.write(line)
                progress.evaluated(line)
                meter.start()
            # After the lines up to this step, so that none is lost or written twice.
            if epoch_ends or stop or _is_due(step, config.checkpoint_every):
                found = {split: bad.found for split, bad in unreadable.items()}
                meta = {"step": step, "meter": meter.settle(), "unreadable": found}
                checkpoints.save(step, state, meta)
                meter.start()
            if stop:
                say(console, "Saving ...")
                checkpoints.wait()
                raise Interrupted(signals[0], step)

    if evaluation is None:  # The last start was stopped after the last step.
        evaluation, figures = _evaluate(
            config, program, eval_step, state, unreadable["test"]
        )
    result = {
        **figures,
        "calibration_error": evaluation.calibration_error(),
        "split": split,
        "classes": len(program.train.class_names),
        "test_images": len(evaluation.label),
        "unreadable_images": sum(map(len, unreadable.values())),
        "parameters": program.parameters,
        "epochs": config.epochs,
        "steps": program.steps,
        "seconds": meter.seconds,
        "images_per_second": meter.images / meter.seconds,
    }
    return result, evaluation


def _evaluate(
    config: Config,
    program: Program,
    eval_step: EvalStep,
    state: TrainState,
    unreadable: BadImages,
) -> tuple[Evaluation, dict[str, float]]:
    """The model's evaluation, and the figures: its own, and those of its means."""

    def of(variables: Any) -> Evaluation:
        batches = eval_batches(
            program.test,
            **program.eval_options,
            **program.reading(config),
            bad_images=unreadable,
        )
        on_devices = prefetch_to_device(batches, program.placement.split)
        return evaluate(eval_step, variables, on_devices)

    evaluation = of(state.variables)
    figures = evaluation.figures()
    if state.ema is not None:
        beside = of(state.ema).figures()
        figures |= {f"ema_{name}": value for name, value in beside.items()}
    return evaluation, figures


def _unreadable(
    config: Config, program: Program, known: Json, console: Console
) -> dict[str, BadImages]:
    sources = {"train": program.train, "test": program.test}
    if program.unlabelled is not None:
        sources["unlabelled"] = program.unlabelled
    return {
        split: BadImages(
            len(source),
            max_share=config.input.max_bad_share,
            say=partial(say, console),
            known=known.get(split),
        )
        for split, source in sources.items()
    }


def _is_due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


@contextlib.contextmanager
def _signals() -> Iterator[list[int]]:
    """Gathers SIGINT and SIGTERM; the second of a kind has its usual effect."""
    received: list[int] = []
    usual = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}

    def note(number, frame):
        received.append(number)
        signal.signal(number, usual[number])

    for number in usual:
        signal.signal(number, note)
    try:
        yield received
    finally:
        for number, handler in usual.items():
            signal.signal(number, handler)
