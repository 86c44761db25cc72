"""The process that reads hostile files, within limits, and counts what happens.

It is forked from a server that has imported everything. An input that ends it is the
one whose number is in the file of counts.
"""

import json
import mmap
import os
import resource
import shutil
import signal
import struct
import sys
import time
import traceback
import warnings
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from benchmarks.fuzzing.readers import READERS, Reader, make_input
from benchmarks.worker_process import peak_memory, resident_memory

__all__ = [
    "COUNTS",
    "MEMORY",
    "SECONDS",
    "State",
    "read_counts",
    "reset_counts",
    "work",
]

MEMORY = 512 * 10**6  # Bytes that reading may take above what the process has.
SECONDS = 5.0  # Of CPU time per input.

COUNTS: tuple[str, ...] = ("read", "refused", "other", "code", "memory")
_STATE = struct.Struct(f"<q{len(COUNTS)}Qddq")  # A `State`.
_LONGEST = 1200  # Characters of a message, without the path.


class CodeRun(BaseException):
    """A reader did what only code from a file would make it do."""


# Events of `sys.addaudithook` that no reader of files has a reason to raise.
_EVENTS = frozenset(
    (
        *("os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.startfile"),
        *("os.fork", "os.forkpty", "pty.spawn", "subprocess.Popen", "exec"),
        *("pickle.find_class", "marshal.loads", "marshal.load", "code.__new__"),
        *(
            "function.__new__",
            "ctypes.dlopen",
            "ctypes.call_function",
            "webbrowser.open",
        ),
        *("socket.connect", "socket.bind", "urllib.Request", "os.kill", "os.putenv"),
        "import",
    )
)


# What may happen in the process's own folder only.
_PATH_EVENTS = frozenset(
    (
        *("os.remove", "os.rename", "os.truncate", "os.chmod", "os.chown", "os.link"),
        *("os.symlink", "os.mkdir", "os.rmdir"),
        *("shutil.rmtree", "shutil.move", "shutil.copyfile"),
    )
)


class _Guard:
    """An audit hook that raises `CodeRun`; hooks cannot be removed, only disarmed."""

    def __init__(self, folder: Path) -> None:
        self._folder = f"{folder}/"
        self.armed = False
        self.seen = ""
        sys.addaudithook(self._hook)

    @staticmethod
    def _is_import() -> bool:
        frame = sys._getframe(2)
        while frame is not None:
            if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
                return True
            frame = frame.f_back
        return False

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.armed:
            return
        if event in _EVENTS:
            # Libraries import parts of theirs when they are needed, which runs code.
            if event == "import" and arguments[0].partition(".")[0] in sys.modules:
                return
            if event in ("exec", "marshal.loads") and self._is_import():
                return
        elif event == "open":
            path, mode, flags = arguments
            writes = isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR)
            if not writes or str(path).startswith(self._folder):
                return
        elif event in _PATH_EVENTS:
            if str(arguments[0]).startswith(self._folder):
                return
        else:
            return
        self.seen = f"{event} {arguments}"[:200]
        raise CodeRun(self.seen)


class State(NamedTuple):
    """What a process has done so far.

    Attributes:
      number: of the last input that it began.
      counts: number of inputs by outcome.
      slowest: CPU seconds of the slowest input.
      seconds: CPU seconds of all.
      peak: bytes above what the process had at first.
    """

    number: int
    counts: dict[str, int]
    slowest: float
    seconds: float
    peak: int


def reset_counts(path: Path) -> None:
    """Writes counts of 0."""
    path.write_bytes(_STATE.pack(-1, *[0] * len(COUNTS), 0.0, 0.0, 0))


def read_counts(path: Path) -> State:
    """What a process has done so far."""
    number, *counts, slowest, seconds, peak = _STATE.unpack(path.read_bytes())
    by_outcome = dict(zip(COUNTS, counts, strict=True))
    return State(number, by_outcome, slowest, seconds, peak)


def work(name: str, seed: int, first: int, stop: int, place: str) -> None:
    """Tries the inputs `first` to `stop` of a reader.

    Args:
      name: of the reader.
      seed: of the inputs.
      first: number of the first input.
      stop: number after the last.
      place: folder of `counts` and `faults.jsonl`; its `files` is written to.
    """
    root = Path(place)
    folder = root / "files"
    folder.mkdir(exist_ok=True)
    warnings.simplefilter("ignore")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # What libraries print of their own.
    os.chdir(folder)
    reader = READERS[name]
    _limit_pixels()
    _warm_up(name, folder)
    base = resident_memory()
    _limit_memory()
    guard = _Guard(root)
    counts: dict[str, int] = dict.fromkeys(COUNTS, 0)
    slowest, written = 0.0, set()
    with (root / "counts").open("r+b") as file:
        state = mmap.mmap(file.fileno(), _STATE.size)
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    clock = time.process_time
    begun = clock()

    def note(number: int) -> None:
        times = slowest, clock() - begun
        peak = peak_memory() - base
        _STATE.pack_into(state, 0, number, *counts.values(), *times, peak)

    for number in range(first, stop):
        files = make_input(name, seed, number)
        note(number)
        for path in written - files.keys():
            _remove(folder / path)
        for path, data in files.items():
            (folder / path).write_bytes(data)
        written = set(files)
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        start = clock()
        outcome, error = _try(reader, folder, guard)
        slowest = max(slowest, clock() - start)
        signal.setitimer(signal.ITIMER_PROF, 0)
        counts[outcome] += 1
        if outcome not in ("read", "refused") and error is not None:
            _report(root, name, number, outcome, error, sum(map(len, files.values())))
        if len(os.listdir(folder)) > len(files):
            for path in set(os.listdir(folder)) - files.keys():
                _remove(folder / path)
    note(stop)
    os._exit(0)


def _try(
    reader: Reader, folder: Path, guard: _Guard
) -> tuple[str, BaseException | None]:
    guard.seen = ""
    guard.armed = True
    try:
        reader.read(folder)
        outcome, error = "read", None
    except reader.raises as caught:
        guard.armed = False
        error = caught
        outcome = "refused" if _is_one_line(caught, folder) else "other"
        if _ran_out_of_memory(caught):
            outcome = "memory"
    except MemoryError as caught:
        outcome, error = "memory", caught
    except CodeRun as caught:
        outcome, error = "code", caught
    except Exception as caught:
        outcome, error = "other", caught
    guard.armed = False
    if guard.seen:  # Even if a library swallowed it.
        outcome, error = "code", CodeRun(guard.seen)
    elif error is None and (folder / "code-has-run").exists():
        outcome, error = "code", CodeRun("a file was created")
    return outcome, error


def _is_one_line(error: BaseException, folder: Path) -> bool:
    message = str(error).replace(str(folder), "")
    # The command lines escape all other characters that break lines.
    return 5 < len(message) < _LONGEST and "\n" not in message


def _ran_out_of_memory(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, MemoryError):
            return True
        hidden = error.__suppress_context__  # Python's parser raises it for nesting.
        error = error.__cause__ or (None if hidden else error.__context__)
    return False


def _limit_pixels() -> None:
    """Allows images of twice as many pixels as this.

    One of 178,956,970 pixels, Pillow's limit, takes gigabytes when it is converted.
    """
    Image.MAX_IMAGE_PIXELS = 2**21


def _limit_memory() -> None:
    with open("/proc/self/statm") as file:
        size = int(file.read().split()[0]) * resource.getpagesize()
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY, hard))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    most = 2**28  # Of a file that a reader might write.
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))


def _warm_up(name: str, folder: Path) -> None:
    """Reads a few inputs, so that what readers import is there."""
    for number in range(3):
        for path, data in make_input(name, -1, number).items():
            (folder / path).write_bytes(data)
        try:
            READERS[name].read(folder)
        except Exception:
            continue
    for path in os.listdir(folder):
        _remove(folder / path)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _report(
    root: Path, name: str, number: int, outcome: str, error: BaseException, size: int
) -> None:
    """Appends a fault, with where it was raised."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [f for f in frames if "/cnn_flax/" in f.filename or "/train/" in f.filename]
    last = ours[-1] if ours else frames[-1] if frames else None
    where = f"{Path(last.filename).name}:{last.lineno}" if last else ""
    line = {
        **{"reader": name, "input": number, "outcome": outcome, "bytes": size},
        **{"type": type(error).__name__, "where": where, "message": str(error)[:300]},
    }
    with (root / "faults.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\n")
