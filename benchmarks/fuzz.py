"""Hostile files for every reader, and what becomes of each.

Inputs are whole files of each kind with parts changed: fields, chunks, instructions of
pickles, sizes, bytes. They are read in worker processes with limits on memory and CPU
time, in which an audit hook watches for what only code from a file would do. An input
is "read", "refused" by an exception that its reader documents, in one line, or a fault.

Input i of a reader and a seed is always the same bytes, with the same versions of
Pillow and of the compressors. They are not guided by coverage, as those of
`python -m benchmarks.fuzzing.guided READER` are.
"""

import argparse
import dataclasses
import datetime
import importlib.metadata
import json
import multiprocessing
import platform
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.flags import at_least, words
from benchmarks.fuzzing import worker
from benchmarks.fuzzing.readers import READERS, make_input
from benchmarks.measurements import Row
from benchmarks.text_table import text_tables
from cnn_flax.registry import nearest
from train.console import say
from train.errors import UserError

__all__ = ["COLUMNS", "Tally", "fuzz", "main", "smallest_faults"]

_CHUNK = 2000  # Inputs per process.
_WAIT = 120.0  # Seconds without a new input after which a process hangs.
_RESTARTS = 50  # Of a reader, after which the rest of its inputs is left out.

# Heading -> name in a row.
COLUMNS = {
    "reader": "reader",
    "inputs": "inputs",
    "read": "read",
    "refused": "refused",
    "other exceptions": "other",
    "out of memory": "memory",
    "code ran": "code",
    "crashed": "crashed",
    "hung": "hung",
    "peak memory, MB": "peak_megabytes",
    "slowest, ms of CPU": "slowest_milliseconds",
    "inputs per CPU-second": "inputs_per_second",
}


@dataclasses.dataclass
class Tally:
    """What became of a reader's inputs.

    Attributes:
      counts: number of inputs by outcome.
      slowest: CPU seconds of the slowest input.
      peak: bytes above what the process had before it read anything.
      seconds: CPU time, with making the inputs.
      restarts: processes that an input ended.
    """

    counts: dict[str, int] = dataclasses.field(
        default_factory=lambda: dict.fromkeys((*worker.COUNTS, "crashed", "hung"), 0)
    )
    slowest: float = 0.0
    peak: int = 0
    seconds: float = 0.0
    restarts: int = 0

    def row(self, reader: str) -> Row:
        """The figures, for a table or a file."""
        inputs = sum(self.counts.values())
        return {
            "reader": reader,
            "inputs": inputs,
            **self.counts,
            "peak_megabytes": round(self.peak / 1e6, 1),
            "slowest_milliseconds": round(1e3 * self.slowest, 1),
            "inputs_per_second": round(inputs / self.seconds) if self.seconds else 0,
        }

    @property
    def faults(self) -> int:
        """Inputs that were neither read nor refused."""
        kept = ("read", "refused")
        return sum(n for name, n in self.counts.items() if name not in kept)


def main(arguments: Sequence[str], console: Console) -> None:
    """Runs the command line.

    Raises:
      UserError: there is no such reader.
    """
    flags = _parser().parse_args(arguments)
    for name in flags.reader or ():
        if name not in READERS:
            raise UserError(
                f"There is no reader {name!r}. {nearest(name, READERS)} "
                f"There are: {', '.join(READERS)}."
            )
    readers = flags.reader or tuple(READERS)
    if flags.input is not None:
        if len(readers) != 1:
            raise UserError("--input is one of a reader: give --reader NAME.")
        return _write_input(readers[0], flags.seed, flags.input, flags.out, console)
    command = f"python -m benchmarks fuzz --inputs {flags.inputs} --seed {flags.seed}"
    if flags.reader:
        command += f" --reader {','.join(readers)}"
    tallies: dict[str, Tally] = {}
    faults: list[dict[str, Any]] = []
    start = time.monotonic()
    try:
        for tallies, faults in fuzz(readers, flags.inputs, flags.seed):
            _write(flags.out, command, flags.seed, tallies, faults)
            if sys.stderr.isatty():
                done = sum(sum(t.counts.values()) for t in tallies.values())
                print(f"\r{done:,} inputs", end="", file=sys.stderr)
    except KeyboardInterrupt:
        say(console, "Stopped.")
    _print(console, tallies)
    say(console, f"{time.monotonic() - start:,.0f} s. Raw results: {flags.out}")
    for fault in smallest_faults(faults):
        say(
            console,
            "{reader} {input}: {outcome}, {type} at {where}: {message}".format(**fault),
        )
    if any(tally.faults for tally in tallies.values()):
        sys.exit(1)


def fuzz(
    readers: Sequence[str], inputs: int, seed: int, start: str = "forkserver"
) -> Iterator[tuple[dict[str, Tally], list[dict[str, Any]]]]:
    """Tries inputs, and yields all counts and faults after each part of them.

    Args:
      readers: names in `READERS`.
      inputs: number of inputs of all readers together.
      seed: of the inputs.
      start: how `multiprocessing` starts a process.
    """
    context = multiprocessing.get_context(start)
    context.set_forkserver_preload(["__main__", "benchmarks.fuzzing.worker"])
    tallies = {name: Tally() for name in readers}
    faults: list[dict[str, Any]] = []
    rounds = {name: iter(_parts(n)) for name, n in shares(readers, inputs).items()}
    shared_memory = Path("/dev/shm")
    where = shared_memory if shared_memory.is_dir() else None
    with tempfile.TemporaryDirectory(dir=where, prefix="fuzz-") as place:
        while rounds:
            for name in list(rounds):
                part = next(rounds[name], None)
                if part is None:
                    del rounds[name]
                    continue
                for fault in _try_part(
                    context, name, seed, *part, place, tallies[name]
                ):
                    faults.append(fault)
                yield tallies, faults


def shares(readers: Sequence[str], inputs: int) -> dict[str, int]:
    """The number of inputs of each reader, by their weights; at least one."""
    total = sum(READERS[name].weight for name in readers)
    return {
        name: max(1, round(inputs * READERS[name].weight / total)) for name in readers
    }


def _parts(count: int) -> list[tuple[int, int]]:
    return [(n, min(n + _CHUNK, count)) for n in range(0, count, _CHUNK)]


def _try_part(
    context: Any, name: str, seed: int, first: int, stop: int, place: str, tally: Tally
) -> Iterator[dict[str, Any]]:
    """Tries some inputs of a reader, in as many processes as they end."""
    counts, log = Path(place, "counts"), Path(place, "faults.jsonl")
    while first < stop and tally.restarts < _RESTARTS:
        worker.reset_counts(counts)
        log.write_text("")
        shutil.rmtree(Path(place, "files"), ignore_errors=True)
        process = context.Process(
            target=worker.work, args=(name, seed, first, stop, place)
        )
        process.start()
        hangs = _hangs(process, lambda: worker.read_counts(counts).number)
        process.join()
        state = worker.read_counts(counts)
        for outcome, n in state.counts.items():
            tally.counts[outcome] += n
        tally.slowest = max(tally.slowest, state.slowest)
        tally.peak = max(tally.peak, state.peak)
        tally.seconds += state.seconds
        yield from map(json.loads, log.read_text().splitlines())
        if process.exitcode == 0:
            return
        if state.number < first:
            raise RuntimeError(f"The process that tries {name} ended at its start.")
        hangs |= process.exitcode == -signal.SIGPROF
        outcome = "hung" if hangs else "crashed"
        tally.counts[outcome] += 1
        tally.restarts += 1
        yield {
            **{"reader": name, "input": state.number, "outcome": outcome},
            **{"type": f"exit code {process.exitcode}", "where": "", "message": ""},
            "bytes": sum(map(len, make_input(name, seed, state.number).values())),
        }
        first = state.number + 1


def _hangs(process: Any, number: Callable[[], int]) -> bool:
    """Waits for a process; ends it if it comes to no new input for long."""
    last, since = number(), time.monotonic()
    while process.is_alive():
        process.join(1.0)
        if (now := number()) != last:
            last, since = now, time.monotonic()
        elif time.monotonic() - since > _WAIT:
            process.kill()
            return True
    return False


def smallest_faults(faults: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The smallest input of each fault: of a reader, an exception and its place."""
    smallest: dict[tuple[str, ...], Mapping[str, Any]] = {}
    for fault in faults:
        key = tuple(str(fault[n]) for n in ("reader", "outcome", "type", "where"))
        if key not in smallest or fault["bytes"] < smallest[key]["bytes"]:
            smallest[key] = fault
    return list(smallest.values())


def _write(
    out: Path,
    command: str,
    seed: int,
    tallies: Mapping[str, Tally],
    faults: Sequence[Mapping[str, Any]],
) -> None:
    """Writes the counts, one line per reader, and the smallest input of each fault."""
    out.mkdir(parents=True, exist_ok=True)
    about = {"seed": seed, "command": command, **_versions()}
    lines = [json.dumps({**t.row(name), **about}) for name, t in tallies.items()]
    (out / "fuzz.jsonl").write_text("\n".join(lines) + "\n", "utf-8")
    found = [json.dumps(fault) for fault in smallest_faults(faults)]
    (out / "faults.jsonl").write_text("\n".join([*found, ""]), "utf-8")


def _versions() -> dict[str, str]:
    """What the outcomes depend on."""
    packages = ("numpy", "pillow", "safetensors", "pyarrow", "jax")
    versions = {name: importlib.metadata.version(name) for name in packages}
    date = datetime.date.today().isoformat()
    return {"date": date, "python": platform.python_version(), **versions}


def _write_input(
    reader: str, seed: int, number: int, out: Path, console: Console
) -> None:
    out.mkdir(parents=True, exist_ok=True)
    for name, data in make_input(reader, seed, number).items():
        (out / name).write_bytes(data)
        say(console, f"{out / name}: {len(data):,} bytes")


def _print(console: Console, tallies: Mapping[str, Tally]) -> None:
    rows = [tally.row(name) for name, tally in tallies.items()]
    lines = [[_cell(row[column]) for column in COLUMNS.values()] for row in rows]
    table = text_tables(list(COLUMNS), lines, console.width) if lines else ""
    say(console, f"what became of hostile files\n\n{table}\n")


def _cell(value: Any) -> str:
    return value if isinstance(value, str) else f"{value:,}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks fuzz",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--inputs",
        type=at_least(1),
        default=10_000,
        metavar="N",
        help="number of inputs of all readers together; by default 10,000",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the inputs")
    parser.add_argument(
        "--reader",
        type=words,
        metavar="NAME,..",
        help=f"any of: {', '.join(READERS)}; by default all",
    )
    parser.add_argument(
        "--input",
        type=at_least(0),
        metavar="NUMBER",
        help="write the files of this input of the reader to --out, and try nothing",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("runs", "benchmarks", "fuzz"),
        metavar="FOLDER",
        help="for fuzz.jsonl, the counts of each reader, and faults.jsonl; by default "
        "runs/benchmarks/fuzz",
    )
    return parser
