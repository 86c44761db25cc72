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
    """Where a process sends itself a signal.

    Attributes:
      stage: how the paths begin that the stage writes below the folder.
      event: number of the event in the stage, from 1. If the stage ends before that,
        the next one's first event counts.
      number: the signal's number.
    """

    stage: str
    event: int
    number: int = signal.SIGKILL


def run_command(
    words: Sequence[str],
    out: Path,
    stages: Sequence[str],
    log: Path,
    programs: Path,
    *points: Point,
) -> tuple[int | None, str]:
    """Runs a command of `python -m train` in a process of its own.

    Args:
      words: the command, without `--out`.
      out: its folder.
      stages: how the paths begin that it writes below the folder, in order.
      log: the file that names the events: operations on files in the folder, training
        steps and batches of evaluations.
      programs: JAX's compilation cache.
      *points: where it sends itself a signal.

    Returns:
      The exit code and what the process printed.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    printed = log.with_suffix(".txt")
    words = [*words, "--out", str(out)]
    arguments = (words, out, tuple(stages), log, printed, programs, points)
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
    points: tuple[Point, ...],
) -> None:
    output = os.open(printed, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(output, 1)
    os.dup2(output, 2)
    jax.config.update("jax_compilation_cache_dir", str(programs))
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(programs)
    compilation_cache.use_compilation_cache()
    events = _Events(out, stages, log, points)
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
    """Counts the events of each stage, and sends signals at the points."""

    def __init__(
        self, out: Path, stages: tuple[str, ...], log: Path, points: tuple[Point, ...]
    ) -> None:
        self._out = f"{out}/"
        self._stages = stages
        self._points = list(points)
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
        """Counts an event, and sends the signals that are due."""
        # Files that are not complete yet have hidden names.
        below = path.removeprefix(self._out).removeprefix(".").replace("/.", "/")
        for number in range(self._stage + 1, len(self._stages)):
            if below.startswith(self._stages[number]):
                self._stage, self._count = number, 0
        self._count += 1
        stage = self._stages[self._stage]
        line = json.dumps([stage, self._count, event])
        os.write(self._log, f"{line}\n".encode())
        now = self._stage, self._count
        while self._points and self._is_due(self._points[0], now):
            os.kill(os.getpid(), self._points.pop(0).number)

    def _is_due(self, point: Point, now: tuple[int, int]) -> bool:
        return now >= (self._stages.index(point.stage), point.event)
