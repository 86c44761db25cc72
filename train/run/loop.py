"""`fit`: drives a run from its config to its result, across restarts."""

import contextlib
import math
import signal
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from train import hosts
from train.config import Config
from train.config_file import as_begun, read_record, recorded_fields
from train.console import class_line, program_name, say
from train.data import BadImages, Source, eval_batches, prefetch_to_device
from train.data.select import check_output
from train.data.source import check_classes
from train.determinism import cost_of_determinism, require_determinism
from train.errors import Interrupted, NotFiniteError
from train.learn.optimizer import make_schedule
from train.learn.step import TrainState
from train.run import run_folder
from train.run.checkpoint import KEEP, Checkpoints
from train.run.evaluation import AnyEvaluation, evaluate
from train.run.feature_cache import with_backbone_features
from train.run.metrics import Meter, MetricsLog
from train.run.precise_bn import PreciseBN, is_wanted
from train.run.program import EvalStep, Program, build, compile_steps
from train.run.progress import RunProgress
from train.run.record import check_pseudo_labels, environment_changes
from train.run.reporting import PAGE, report_run
from train.run.symptoms import divergence, overfitting
from train.run.teacher_cache import with_teacher_logits
from train.run.tensorboard import TensorBoardLog, check_installed
from train.run.together import (
    Stop,
    agree_on_data,
    agree_on_request,
    check_shared,
    share_unreadable,
)
from train.run.training_batches import training_batches

__all__ = ["fit"]

Json = dict[str, Any]


def fit(
    config: Config,
    run: Path,
    *,
    recipe: str = "",
    console: Console | None = None,
    unlabelled_set: Source | None = None,
    extend: bool = False,
) -> Json:
    """Trains a model, or resumes a run.

    However a run was interrupted, it ends bit-equal to an uninterrupted one, on the
    same machine and versions. A run that is extended has the schedule of the new number
    of epochs from where it stands.

    With several processes (`train.hosts`), all must call it, and process 0 alone writes
    anything but checkpoints.

    Args:
      config: what to run.
      run: the run's folder.
      recipe: name of its recipe.
      console: prints progress; None is standard output.
      unlabelled_set: the set of unlabelled images, if it is open already.
      extend: whether to train the folder's run for the config's larger number of
        epochs, even if it has ended. Its old `result.json` stays, under a name with the
        old number of epochs.

    Returns:
      The contents of the run's `result.json`. A run that has ended is not trained
      again, unless it is extended.

    Raises:
      UserError: if the config cannot be run, or the folder holds anything but this
        run.
      SourceError: if the data cannot be used.
      NotFiniteError: if a loss or gradient was NaN or infinite. The last checkpoint is
        from before that.
      Interrupted: on SIGINT or SIGTERM, after saving the run.
      StorageError: if the disk filled up. The last checkpoint is complete.
    """
    console = console or Console()
    require_determinism(config.parallelism.deterministic)
    record = read_record(run, whole=True)
    agree_on_request(config, recipe, record)
    run_folder.check_whole(run)
    leads = hosts.is_leader()
    old_epochs = config.epochs
    if record is not None:
        config = as_begun(config, recorded_fields(record))
        run_folder.check_same_run(run, record, recipe, config, extend=extend)
        old_epochs = record["config"]["epochs"]
    result = run_folder.read_result(run)
    hosts.agree({"whether the run has ended": result is not None})
    if result is not None and old_epochs == config.epochs:
        say(console, f"{run} has ended already.")
        if leads and not (run / PAGE).exists():
            say(console, f"For its report: {program_name()} evaluate {run}")
        return run_folder.whole_result(run)
    if config.tensorboard:
        check_installed()

    with contextlib.ExitStack() as stack:
        # Lock before the slow part; a new run has no folder.
        if record is not None and leads:
            stack.enter_context(run_folder.lock(run))
        elif record is None:
            check_output(config, run)
        if config.parallelism.deterministic:
            say(console, cost_of_determinism())
        program = build(config, recipe, unlabelled_set=unlabelled_set)
        agree_on_data(program)
        run_folder.check_space(run, program.bytes, KEEP)
        if record is None:
            program.load_weights()  # Before the folder exists: they may not fit.
            if leads:
                stack.enter_context(run_folder.lock(run))
                run_folder.write_record(run, program.record)
        else:
            check_classes(program.train, record["class_names"])
            check_pseudo_labels(record, program.record)
            for change in environment_changes(record, program.record):
                say(console, change)
            if old_epochs != config.epochs:
                if leads:
                    run_folder.extend(run, record, config.epochs)
                say(console, _extension(program, old_epochs))
        check_shared(run)
        stack.enter_context(run_folder.storing(run))
        return _run(run, program, console)


def _extension(program: Program, old_epochs: int) -> str:
    """What happens to the schedule of a run that is extended."""
    config, per_epoch = program.config, program.steps_per_epoch
    steps = old_epochs * per_epoch
    old = make_schedule(config.optimization, per_epoch, steps)
    return (
        f"Extending the run from {old_epochs} to {config.epochs} epochs: --schedule "
        f"{config.optimization.schedule} now spans {config.epochs}. After epoch "
        f"{old_epochs}, whose last step has the learning rate "
        f"{float(old(steps - 1)):.3g} in the old schedule, it is "
        f"{float(program.schedule(steps)):.3g}."
    )


def _run(run: Path, program: Program, console: Console) -> Json:
    """Runs a program that has passed all checks of `fit`."""
    say(console, program.headline)
    say(console, class_line(program.train.class_names))
    for warning in program.warnings:
        say(console, warning)
    if program.config.distillation.cache_teacher:
        with console.status("computing the teacher's logits"):
            program = with_teacher_logits(program, run)
    with Checkpoints(run) as checkpoints:
        try:
            # Before the checkpoints are closed: the other processes may be waiting.
            with hosts.telling():
                result, evaluation = _train(run, program, checkpoints, console)
        except NotFiniteError as error:
            checkpoints.wait()
            error.add_note(
                f"{run} keeps the checkpoint of step {checkpoints.latest or 0}. Try a "
                "lower --learning-rate or more --warmup-epochs, with another --out."
            )
            raise
    if hosts.is_leader():
        run_folder.write_result(run, result)
        report_run(run, program.record, evaluation, program.test, console)
    return result


def _train(
    run: Path,
    program: Program,
    checkpoints: Checkpoints,
    console: Console,
) -> tuple[Json, AnyEvaluation]:
    """Trains from the last checkpoint, or the start, to the result."""
    config = program.config
    with console.status("compiling"):
        train_step, eval_step = compile_steps(program)
        if checkpoints.latest is None:
            state, meta = program.init(), {}
        else:
            state, meta = checkpoints.restore(program.shapes)
            state = program.attach_teacher(state)
    start = meta.get("step", 0)
    _say_start(run, checkpoints, start, program.steps, console)
    meter = Meter(config.input.batch_size, meta.get("meter"))
    unreadable = _unreadable(program, meta.get("unreadable", {}), console)
    precise_bn = _precise_bn(program, unreadable["train"], console)
    if program.features:
        with console.status("computing the backbone's features"):
            program = with_backbone_features(program, run, state, unreadable)
    split = config.selection.eval_split
    classes = len(program.train.class_names)
    evaluation, figures = None, {}
    trained, diverges = None, False
    agreed = Stop(program.placement)

    with (
        contextlib.closing(training_batches(program, start, unreadable)) as batches,
        _log(run, config, start) as log,
        _signals() as signals,
        RunProgress(
            console, start=start, steps=program.steps, epochs=config.epochs
        ) as progress,
    ):
        per_epoch = program.steps_per_epoch
        meter.start()
        for step in range(start + 1, program.steps + 1):
            state, metrics = train_step(state, next(batches), program.key)
            meter.add(step, metrics)
            progress.step()
            epoch_ends = step % per_epoch == 0
            is_last = step == program.steps
            stop = agreed(signals[0] if signals else 0, is_last=is_last)
            place = {"step": step, "epoch": round(step / per_epoch, 4)}

            is_logged = is_last or _is_logged(step, config.log_every, per_epoch)
            if is_logged or epoch_ends or stop:
                run_folder.check_there(run)
            if is_logged:
                rate = float(program.schedule(step - 1))
                line = {**place, "split": "train", **meter.line()}
                if log:
                    log.write({**line, "learning_rate": rate})
                progress.trained(line)
                trained = line
                if not diverges and (
                    warning := divergence(config, line, program.train)
                ):
                    diverges = True
                    say(console, warning)
            if epoch_ends:
                meter.settle()
                state = precise_bn(state)
                evaluation, figures = _evaluate(
                    program, eval_step, state, unreadable["test"]
                )
                line = {**place, "split": split, **figures}
                if log:
                    log.write(line)
                progress.evaluated(line)
                meter.start()
            # After the log lines up to this step, so that none is lost or repeated.
            if epoch_ends or stop or _is_due(step, config.checkpoint_every):
                names = share_unreadable(unreadable)
                meta = {"step": step, "meter": meter.settle(), "unreadable": names}
                checkpoints.save(step, state, meta)
                meter.start()
            if stop:
                say(console, "Saving ...")
                checkpoints.wait()
                raise Interrupted(stop, step)

    if evaluation is None:  # The run was stopped after its last step.
        evaluation, figures = _evaluate(program, eval_step, state, unreadable["test"])
    if trained and not diverges:
        warning = overfitting(config, trained, figures, program.train)
        if warning:
            say(console, warning)
    share_unreadable(unreadable)
    for name, value in figures.items():
        if not math.isfinite(value):
            raise NotFiniteError(program.steps, f"{split} {name}", value)
    result = {
        **figures,
        "calibration_error": evaluation.calibration_error(),
        "split": split,
        "classes": classes,
        "test_images": len(evaluation.label),
        "unreadable_images": sum(map(len, unreadable.values())),
        "parameters": program.parameters,
        "epochs": config.epochs,
        "steps": program.steps,
        "seconds": meter.seconds,
        "images_per_second": meter.images / meter.seconds,
    }
    return result, evaluation


def _say_start(
    run: Path, checkpoints: Checkpoints, start: int, steps: int, console: Console
) -> None:
    """Says where a resumed run goes on; sets damaged checkpoints aside."""
    if checkpoints.damaged:
        place = checkpoints.set_aside()
        for step, reason in checkpoints.damaged.items():
            say(
                console,
                f"The checkpoint of step {step} cannot be read, and is in {place} now: "
                f"{reason}",
            )
    if start:
        say(console, f"Resuming from step {start} of {steps}.")
    elif (run / "metrics.jsonl").exists():
        say(console, f"{run} has no checkpoint: it starts again from step 0.")


def _evaluate(
    program: Program,
    eval_step: EvalStep,
    state: TrainState,
    unreadable: BadImages,
) -> tuple[AnyEvaluation, dict[str, float]]:
    """The model's evaluation, and its figures with those of the moving average."""

    def evaluation_of(variables: Any) -> AnyEvaluation:
        batches = eval_batches(
            program.test,
            **program.eval_batch._asdict(),
            **program.decode_options(),
            **program.process,
            bad_images=unreadable,
        )
        on_device = prefetch_to_device(batches, program.placement.sharded)
        return evaluate(eval_step, variables, on_device)

    evaluation = evaluation_of(state.variables)
    figures = evaluation.figures()
    if state.ema is not None:
        averaged = evaluation_of(state.ema).figures()
        figures |= {f"ema_{name}": value for name, value in averaged.items()}
    return evaluation, figures


def _precise_bn(
    program: Program, unreadable: BadImages, console: Console
) -> Callable[[TrainState], TrainState]:
    """Gives a state the statistics to evaluate it with."""
    if not is_wanted(program):
        return _unchanged
    reason = f"as {program.steps:,} steps are few for running ones (--precise-bn)"
    if program.config.optimization.precise_bn == "always":
        reason = "as --precise-bn always asks"
    say(
        console,
        "BatchNorm statistics are those of the current weights on the training images, "
        f"{reason}.",
    )
    with console.status("compiling"):
        return PreciseBN(program, unreadable)


def _unchanged(state: TrainState) -> TrainState:
    return state


def _log(
    run: Path, config: Config, step: int
) -> contextlib.AbstractContextManager[MetricsLog | None]:
    """The log of a run from a step on; None in a process that does not write it."""
    if not hosts.is_leader():
        return contextlib.nullcontext()
    return (TensorBoardLog if config.tensorboard else MetricsLog)(run, step)


def _unreadable(
    program: Program, found_before: Json, console: Console
) -> dict[str, BadImages]:
    """Collectors of unreadable images, for each source."""
    sources = {"train": program.train, "test": program.test}
    if program.unlabelled is not None:
        sources["unlabelled"] = program.unlabelled
    return {
        split: BadImages(
            len(source),
            max_share=program.config.input.max_bad_share,
            say=partial(say, console),
            found=found_before.get(split),
        )
        for split, source in sources.items()
    }


def _is_logged(step: int, every: int, per_epoch: int) -> bool:
    """Whether a step has a line of the log: every few, and one in each epoch."""
    has_had_one = step // every > (step - per_epoch) // every
    return step % every == 0 or (step % per_epoch == 0 and not has_had_one)


def _is_due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


@contextlib.contextmanager
def _signals() -> Iterator[list[int]]:
    """Collects SIGINT and SIGTERM; the second one of a kind has its usual effect.

    Python gives signals to its main thread alone; in another, there are none.
    """
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield received
        return
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
