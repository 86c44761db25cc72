"""Programs in processes of their own, which live as long as they are measured.

So torch and JAX share no threads, each program's memory is its process's, and a start
is a real one: nothing here imports JAX. The process reads requests, a line of JSON
each, and answers likewise.
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
from typing import Any, TypeVar

__all__ = [
    "Program",
    "WorkerProcess",
    "WorkerError",
    "has_torch",
    "peak_memory",
    "resident_memory",
    "started",
]

# Does its work so many times, and waits for the end. It may return the seconds that are
# to count.
Program = Callable[[int], float | None]

_Name = TypeVar("_Name", bound=Hashable)

_SAID = 2000  # Characters of what a worker said last.


class WorkerError(RuntimeError):
    """A program could not be built or run; the message says why."""


class WorkerProcess:
    """A process with one program. It is a context, which ends it.

    Attributes:
      info: what the program's builder told of it.
      first_step: seconds from the process's start to the end of the first step.
      extra_memory: bytes that the first step took on top of what there was; None
        where the system does not tell.
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
            and what is to be told of it, as JSON has it.
          options: as JSON has it.
          environment: variables that are added to this process's.

        Raises:
          WorkerError: if that fails.
        """
        start = time.perf_counter()
        self._said = tempfile.TemporaryFile("w+", errors="replace")
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__],
            env={
                **os.environ,
                # Others use the same GPU.
                "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
                **(environment or {}),
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            text=True,
        )
        try:
            self.info = self._ask({"build": builder, "options": dict(options)})
            self.extra_memory = self._ask({"run": 1, "memory": True})["extra_memory"]
        except BaseException:
            self.close()
            raise
        self.first_step = time.perf_counter() - start

    def run(self, calls: int) -> float:
        """Seconds that so many steps took."""
        return self._ask({"run": calls})["seconds"]

    def peak_memory(self) -> int:
        """Bytes since the program was built: the device's where it tells, else all."""
        return self._ask({"peak": True})["peak_memory"]

    def close(self) -> None:
        """Ends the process."""
        for pipe in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):
                pipe.close()  # pyright: ignore[reportOptionalMemberAccess]
        self._process.wait()
        self._said.close()

    def __enter__(self) -> "WorkerProcess":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        requests, answers = self._process.stdin, self._process.stdout
        assert requests is not None and answers is not None
        line = ""
        with contextlib.suppress(BrokenPipeError):
            requests.write(json.dumps(request) + "\n")
            requests.flush()
            line = answers.readline()
        if not line:
            code = self._process.wait()
            self._said.seek(0)
            said = self._said.read()[-_SAID:].strip()
            raise WorkerError(f"The process ended with status {code}. {said}".strip())
        answer = json.loads(line)
        if "error" in answer:
            raise WorkerError(answer["error"])
        return answer


@contextlib.contextmanager
def started(
    asked: Mapping[_Name, Sequence[Any]],
    rows: Mapping[_Name, dict[str, Any]] | None = None,
    start: Callable[..., AbstractContextManager[WorkerProcess]] = WorkerProcess,
) -> Iterator[dict[_Name, WorkerProcess]]:
    """Workers for as long as the context lasts.

    Args:
      asked: name -> arguments of `start`.
      rows: name -> its row. Where one cannot be started, its row has `error` and the
        others go on.
      start: makes a worker.

    Raises:
      WorkerError: one cannot be started, and there are no rows to say so.
    """
    workers = {}
    with contextlib.ExitStack() as stack:
        for name, arguments in asked.items():
            try:
                workers[name] = stack.enter_context(start(*arguments))
            except WorkerError as error:
                if rows is None:
                    raise
                rows[name]["error"] = str(error).splitlines()[0]
        yield workers


def has_torch() -> bool:
    """Whether the peers of the extra `bench` are installed; none is imported."""
    names = ("torch", "torchvision")
    return all(importlib.util.find_spec(name) is not None for name in names)


def _serve() -> None:
    # What libraries print must not stand among the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    program: Program | None = None
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if "build" in request:
                program, answer = _build(request["build"], request["options"])
            elif "run" in request:
                assert program is not None
                answer = _run(program, request["run"], request.get("memory", False))
            else:
                answer = {"peak_memory": _device_peak() or peak_memory()}
        except Exception as error:
            traceback.print_exc()
            answer = {"error": f"{type(error).__name__}: {error}"[:_SAID]}
        print(json.dumps(answer), file=answers, flush=True)


def _build(builder: str, options: dict[str, Any]) -> tuple[Program, dict[str, Any]]:
    module, _, function = builder.partition(":")
    return getattr(importlib.import_module(module), function)(**options)


def _run(program: Program, calls: int, memory: bool) -> dict[str, Any]:
    before = _fresh_peak() if memory else None
    start = time.perf_counter()
    own = program(calls)
    seconds = time.perf_counter() - start if own is None else own
    extra = None if before is None else peak_memory() - before
    return {"seconds": seconds, "extra_memory": extra}


def _fresh_peak() -> int | None:
    """Begins a new peak; memory now, in bytes, or None where Linux does not do it."""
    with contextlib.suppress(OSError, AttributeError):
        # What has been freed goes back first, or it would be taken again unseen.
        ctypes.CDLL(None).malloc_trim(0)
    try:
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")
        return resident_memory()
    except OSError:
        return None


def resident_memory() -> int:
    """Memory of this process now, in bytes.

    Raises:
      OSError: where the system is no Linux.
    """
    return _status("VmRSS")


def peak_memory() -> int:
    """Peak of this process's memory, in bytes, since it began or a new peak did.

    Not `ru_maxrss` where there is another: a process begins with its parent's.
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
    """Peak of the accelerator's memory, in bytes, by whichever library has used it."""
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
