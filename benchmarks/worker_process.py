"""Worker processes that each run one program while it is measured.

Torch and JAX share no threads this way, a program's memory is that of its process, and
a start is that of a new process: this module does not import JAX. The process reads
requests and writes replies, one line of JSON each.
"""

import contextlib
import ctypes
import importlib
import importlib.util
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, TypeVar

__all__ = [
    "Program",
    "WorkerProcess",
    "WorkerError",
    "has_torch",
    "peak_memory",
    "resident_memory",
    "start_workers",
]

# Does its work this many times and waits for the device. It may return the seconds to
# report.
Program = Callable[[int], float | None]

_Name = TypeVar("_Name", bound=Hashable)

_OUTPUT = 2000  # Characters of a worker's last output.


class WorkerError(RuntimeError):
    """A program could not be built or run; the message has the cause."""


class WorkerProcess:
    """A process that runs one program; a context manager that ends it.

    Attributes:
      info: information from the program's builder.
      first_step: seconds from the start of the process to the end of the first step.
      extra_memory: bytes that the first step added to the process's memory; None if
        the system does not report them.
    """

    def __init__(
        self,
        builder: str,
        options: Mapping[str, Any],
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Starts the process, builds the program and runs it once.

        Args:
          builder: "module:function", which takes the options and returns a `Program`
            and information about it, of JSON's types.
          options: of JSON's types.
          environment: environment variables in addition to this process's.

        Raises:
          WorkerError: the process, the builder or the first step failed.
        """
        start = time.perf_counter()
        self._stderr = tempfile.TemporaryFile("w+", errors="replace")
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__],
            env={
                **os.environ,
                # Other processes use the same GPU.
                "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
                **(environment or {}),
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            text=True,
        )
        try:
            self.info = self._request({"build": builder, "options": dict(options)})
            self.extra_memory = self._request({"run": 1, "memory": True})[
                "extra_memory"
            ]
        except BaseException:
            self.close()
            raise
        self.first_step = time.perf_counter() - start

    def run(self, calls: int) -> float:
        """Returns the seconds that this many steps took."""
        return self._request({"run": calls})["seconds"]

    def peak_memory(self) -> int:
        """Returns the peak since the program was built, in bytes.

        It is the device's where its library reports it, or else the process's.
        """
        return self._request({"peak": True})["peak_memory"]

    def profile(self, calls: int, folder: Path) -> None:
        """Writes a profile of this many steps of a JAX program.

        Raises:
          WorkerError: the profiler failed.
        """
        self._request({"profile": calls, "folder": str(folder.absolute())})

    def close(self) -> None:
        """Ends the process."""
        for pipe in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):
                pipe.close()  # pyright: ignore[reportOptionalMemberAccess]
        self._process.wait()
        self._stderr.close()

    def __enter__(self) -> "WorkerProcess":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _request(self, request: Mapping[str, Any]) -> dict[str, Any]:
        requests, replies = self._process.stdin, self._process.stdout
        assert requests is not None and replies is not None
        line = ""
        with contextlib.suppress(BrokenPipeError):
            requests.write(json.dumps(request) + "\n")
            requests.flush()
            line = replies.readline()
        if not line:
            code = self._process.wait()
            self._stderr.seek(0)
            output = self._stderr.read()[-_OUTPUT:].strip()
            raise WorkerError(f"The process ended with status {code}. {output}".strip())
        reply = json.loads(line)
        if "error" in reply:
            raise WorkerError(reply["error"])
        return reply


@contextlib.contextmanager
def start_workers(
    arguments: Mapping[_Name, Sequence[Any]],
    rows: Mapping[_Name, dict[str, Any]] | None = None,
    start: Callable[..., AbstractContextManager[WorkerProcess]] = WorkerProcess,
) -> Iterator[dict[_Name, WorkerProcess]]:
    """Starts workers that live as long as the context.

    Args:
      arguments: name -> arguments of `start`.
      rows: name -> row. If a worker cannot be started, its row gets `error` and the
        others are started.
      start: makes a worker.

    Raises:
      WorkerError: a worker cannot be started, and there are no rows.
    """
    workers = {}
    with contextlib.ExitStack() as stack:
        for name, own in arguments.items():
            try:
                workers[name] = stack.enter_context(start(*own))
            except WorkerError as error:
                if rows is None:
                    raise
                rows[name]["error"] = str(error).splitlines()[0]
        yield workers


def has_torch() -> bool:
    """Whether torch and torchvision are installed, without importing them."""
    names = ("torch", "torchvision")
    return all(importlib.util.find_spec(name) is not None for name in names)


def _serve() -> None:
    # Keep what libraries print out of the replies.
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    program: Program | None = None
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if "build" in request:
                program, reply = _build(request["build"], request["options"])
            elif "run" in request:
                assert program is not None
                reply = _run(program, request["run"], request.get("memory", False))
            elif "profile" in request:
                assert program is not None
                reply = _profile(program, request["profile"], request["folder"])
            else:
                reply = {"peak_memory": _device_peak() or peak_memory()}
        except Exception as error:
            traceback.print_exc()
            reply = {"error": f"{type(error).__name__}: {error}"[:_OUTPUT]}
        print(json.dumps(reply), file=replies, flush=True)


def _build(builder: str, options: dict[str, Any]) -> tuple[Program, dict[str, Any]]:
    module, _, function = builder.partition(":")
    return getattr(importlib.import_module(module), function)(**options)


def _run(program: Program, calls: int, memory: bool) -> dict[str, Any]:
    before = _reset_peak() if memory else None
    start = time.perf_counter()
    reported = program(calls)
    seconds = time.perf_counter() - start if reported is None else reported
    extra = None if before is None else peak_memory() - before
    return {"seconds": seconds, "extra_memory": extra}


def _profile(program: Program, calls: int, folder: str) -> dict[str, Any]:
    import jax

    options = jax.profiler.ProfileOptions()
    options.python_tracer_level = 0  # The device's operations alone.
    with jax.profiler.trace(folder, profiler_options=options):
        program(calls)
    return {}


def _reset_peak() -> int | None:
    """Resets the peak; returns the memory in bytes, or None if the system cannot."""
    with contextlib.suppress(OSError, AttributeError):
        # Return freed memory to the system first: reusing it would not show.
        ctypes.CDLL(None).malloc_trim(0)
    try:
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")
        return resident_memory()
    except OSError:
        return None


def resident_memory() -> int:
    """Returns this process's memory in bytes.

    Raises:
      OSError: the system is not Linux.
    """
    return _status("VmRSS")


def peak_memory() -> int:
    """Returns the peak of this process's memory in bytes, since its start or a reset.

    `ru_maxrss` serves only where Linux's figure is missing: it begins with the peak of
    the parent process.
    """
    try:
        return _status("VmHWM")
    except OSError:
        return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _status(name: str) -> int:
    with open("/proc/self/status") as file:
        for line in file:
            if line.startswith(name + ":"):
                return 1024 * int(line.split()[1])
    raise OSError(name)


def _device_peak() -> int | None:
    """Peak of the accelerator's memory in bytes, from the library that uses it."""
    if "torch" in sys.modules and "jax" not in sys.modules:
        torch = sys.modules["torch"]
        if torch.cuda.is_available():
            return torch.cuda.max_memory_allocated()
    elif "jax" in sys.modules:
        device = sys.modules["jax"].devices()[0]
        if device.platform != "cpu":
            return (device.memory_stats() or {}).get("peak_bytes_in_use")
    return None


if __name__ == "__main__":
    _serve()
