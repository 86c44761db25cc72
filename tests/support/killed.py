"""Processes that run a command and kill themselves at a point drawn before.

They are forked from a server that has imported the programs and computed nothing, so
that a start costs no imports.
"""

import json
import multiprocessing
import os
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax

from train import compilation_cache
from train.commands.main import leave, main
from train.noisy_student import run as noisy_student
from train.run import loop
from train.run.progress import RunProgress

__all__ = ["Point", "events_of", "run_command"]

# Operations on files, by the names of Python's audit events.
_OPERATIONS = ("open", "os.")


class Point(NamedTuple):
    """Where a process kills itself.

    Attributes:
      stage: how the paths begin that the stage writes below the folder.
      event: number of the event in the stage, from 1. If the stage ends before that,
        the next one's first event counts.
    """

    stage: str
    event: int


def run_command(
    words: Sequence[str],
    out: Path,
    stages: Sequence[str],
    log: Path,
    programs: Path,
    point: Point | None = None,
) -> tuple[int | None, str]:
    """Runs a command of `python -m train` in a process of its own.

    Args:
      words: the command, without `--out`.
      out: its folder.
      stages: how the paths begin that it writes below the folder, in order.
      log: the file that names the events: operations on files in the folder, training
        steps and batches of evaluations.
      programs: JAX's compilation cache.
      point: where it kills itself; None for a process that ends.

    Returns:
      The exit code and what the process printed.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    printed = log.with_suffix(".txt")
    words = [*words, "--out", str(out)]
    arguments = (words, out, tuple(stages), log, printed, programs, point)
    process = context.Process(target=_run, args=arguments)
    process.start()
    process.join()
    return process.exitcode, printed.read_text()


def events_of(log: Path) -> Counter[str]:
    """The number of events of each stage."""
    return Counter(json.loads(line)[0] for line in log.read_text().splitlines())


def _run(
    words: list[str],
    out: Path,
    stages: tuple[str, ...],
    log: Path,
    printed: Path,
    programs: Path,
    point: Point | None,
) -> None:
    output = os.open(printed, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(output, 1)
    os.dup2(output, 2)
    jax.config.update("jax_compilation_cache_dir", str(programs))
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(programs)
    compilation_cache.use_compilation_cache()
    events = _Events(out, stages, log, point)
    sys.addaudithook(events.audit)
    RunProgress.step = _first(lambda: events.add("step"), RunProgress.step)
    # Drawing takes as long as training, and is not what a run resumes.
    loop.report_run = noisy_student._write_report = lambda *arguments: None
    evaluate = loop.evaluate

    def counted(batches: Any) -> Iterator[Any]:
        for batch in batches:
            events.add("batch of an evaluation")
            yield batch

    loop.evaluate = lambda step, variables, batches: evaluate(
        step, variables, counted(batches)
    )
    leave(main(words))


def _first(effect: Callable[[], None], function: Callable[..., Any]) -> Any:
    """The function, after an effect."""

    def both(*arguments: Any) -> Any:
        effect()
        return function(*arguments)

    return both


class _Events:
    """Counts the events of each stage, and ends the process at the point."""

    def __init__(
        self, out: Path, stages: tuple[str, ...], log: Path, point: Point | None
    ) -> None:
        self._out = f"{out}/"
        self._stages = stages
        self._point = point
        self._log = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        self._stage = 0
        self._count = 0

    def audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        """An audit hook, for `sys.addaudithook`."""
        if not event.startswith(_OPERATIONS) or not arguments:
            return
        path = arguments[0]
        if isinstance(path, str | bytes | os.PathLike):
            path = os.fsdecode(path)
            if path.startswith(self._out):
                self.add(f"{event} {path.removeprefix(self._out)}", path)

    def add(self, event: str, path: str = "") -> None:
        """Counts an event, unless it kills the process."""
        # Files that are not complete yet have hidden names.
        below = path.removeprefix(self._out).removeprefix(".").replace("/.", "/")
        for number in range(self._stage + 1, len(self._stages)):
            if below.startswith(self._stages[number]):
                self._stage, self._count = number, 0
        self._count += 1
        stage = self._stages[self._stage]
        line = json.dumps([stage, self._count, event])
        os.write(self._log, f"{line}\n".encode())
        if self._point is None:
            return
        due = self._stages.index(self._point.stage)
        if self._stage > due or (
            self._stage == due and self._count >= self._point.event
        ):
            os.kill(os.getpid(), signal.SIGKILL)
