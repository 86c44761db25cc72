"""A GPU's figures within a few minutes, the ones that are worth most first.

Each part is a call of `python -m benchmarks` that ends in time. The folder has raw
results, profiles and logs of each, and `table.md`, which is whole after every part.
"""

import argparse
import contextlib
import datetime
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from rich.console import Console

from benchmarks.flags import words
from benchmarks.gpu_parts import PARTS, Part
from benchmarks.gpu_process import failure, run_part
from benchmarks.gpu_table import Result, write_table
from cnn_flax.registry import nearest
from train.console import say
from train.errors import StorageError, UserError

__all__ = ["main", "measure"]

_RESERVE = 10.0  # Seconds for the last part's end and the table.

# Runs a command with additional environment variables, writes its output to a file, and
# returns its status; None if it was ended after so many seconds.
Runner = Callable[[Sequence[str], Mapping[str, str], Path, float], int | None]


def main(arguments: Sequence[str], console: Console) -> None:
    """Runs the command line.

    Raises:
      UserError: there is no such part, or no GPU.
    """
    flags = _parser().parse_args(arguments)
    names = [part.name for part in PARTS]
    for name in flags.parts or ():
        if name not in names:
            raise UserError(
                f"There is no part {name!r}. {nearest(name, names)} "
                f"There are: {', '.join(names)}."
            )
    if not flags.rehearse:
        _require_gpu()
    parts = [part for part in PARTS if part.name in (flags.parts or names)]
    with _terminated_as_interrupted():
        try:
            results = measure(
                parts, flags.out, 60 * flags.minutes, console, rehearse=flags.rehearse
            )
        except KeyboardInterrupt:
            say(console, f"Stopped. What was measured: {flags.out / 'table.md'}")
            sys.exit(130)
    say(console, f"Table: {flags.out / 'table.md'}")
    if any(result.state.startswith("failed") for result in results):
        sys.exit(1)


def measure(
    parts: Sequence[Part],
    folder: Path,
    seconds: float,
    console: Console,
    *,
    rehearse: bool = False,
    run: Runner | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> list[Result]:
    """Runs the parts in order, and those alone for which enough time is left.

    `table.md` is written after each part, and when a part is interrupted.

    Args:
      parts: to run.
      folder: for all files.
      seconds: for all parts together.
      console: gets a line per part.
      rehearse: whether to run on the CPU with small images.
      run: by default `run_part`.
      clock: returns seconds.

    Raises:
      StorageError: the folder cannot be written.
      KeyboardInterrupt: the part that ran was ended.
    """
    end = clock() + seconds - _RESERVE
    run = run or run_part
    order = {part.name: number for number, part in enumerate(PARTS, 1)}
    results = []
    for part in parts:
        stem = f"{order.get(part.name, 0):02}_{part.name}"
        results.append(Result(part, folder / f"{stem}.json"))
    with _storage(folder), tempfile.TemporaryDirectory() as caches:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            for result in results:
                part, start = result.part, clock()
                if end - start < part.needs(rehearse):
                    say(console, f"{part.name}: not reached")
                    continue
                result.state = "interrupted"
                say(console, f"{part.name}: {result.path}")
                # The results of an earlier run are not this one's.
                result.path.unlink(missing_ok=True)
                log = result.path.with_suffix(".log")
                status = run(
                    [sys.executable, "-m", "benchmarks"]
                    + part.words(result.path, rehearse),
                    _environment(part, Path(caches), rehearse),
                    log,
                    end - start,
                )
                result.seconds = clock() - start
                result.state = _state(status, result.path, log)
                say(console, f"  {result.state}, {result.seconds:.0f} s")
                write_table(folder, results, rehearse)
        finally:
            write_table(folder, results, rehearse)
    return results


def _environment(part: Part, caches: Path, rehearse: bool) -> dict[str, str]:
    # Programs and algorithms that were found under other flags are not its own.
    cache = caches / (part.name if part.flags else "default")
    environment = {
        "JAX_COMPILATION_CACHE_DIR": str(cache / "xla"),
        "TORCHINDUCTOR_CACHE_DIR": str(cache / "torch"),
    }
    if part.flags:
        flags = f"{os.environ.get('XLA_FLAGS', '')} {part.flags}"
        environment["XLA_FLAGS"] = flags.strip()
    if rehearse:
        environment |= {"JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": ""}
    return environment


def _state(status: int | None, path: Path, log: Path) -> str:
    if status is None:
        return "stopped, as time was over"
    return "measured" if status == 0 else f"failed: {failure(path, log)}"


def _require_gpu() -> None:
    import jax

    # The parts use the same GPU.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    if (platform := jax.default_backend()) != "gpu":
        raise UserError(
            f"JAX sees no GPU here, only a {platform}. With one, install "
            "'cnn-flax[cuda,bench]'; without one, --rehearse runs each part on the CPU."
        )


@contextlib.contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """Handles SIGTERM as Ctrl-C, so that the parts end and the table stays."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def _storage(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageError(f"{folder} cannot be written: {error.strerror}") from error


def _minutes(text: str) -> float:
    if not 0 < (value := float(text)) < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return value


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks gpu",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--minutes", type=_minutes, default=12.0, help="for everything; by default 12"
    )
    parser.add_argument(
        "--rehearse",
        action="store_true",
        help="run each part on the CPU with small images; the figures mean nothing",
    )
    parser.add_argument(
        "--parts",
        type=words,
        metavar="NAME,..",
        help=f"any of: {', '.join(part.name for part in PARTS)}; by default all",
    )
    now = datetime.datetime.now().strftime("%Y-%m-%d_%H%M%S")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("runs", "benchmarks", f"{now}_gpu"),
        metavar="FOLDER",
        help="for raw results, profiles, logs and table.md; by default "
        "runs/benchmarks/NOW_gpu",
    )
    return parser
