"""The process group of a part of `python -m benchmarks gpu`."""

import contextlib
import os
import re
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.measurements import read

__all__ = ["failure", "run_part"]


def run_part(
    command: Sequence[str], environment: Mapping[str, str], log: Path, seconds: float
) -> int | None:
    """Runs a command and ends it, with the processes that it started, in time.

    Args:
      command: to run, in a process group of its own.
      environment: variables in addition to this process's.
      log: file for its output.
      seconds: after which it is ended.

    Returns:
      Its status; None if it was ended.
    """
    with log.open("wb") as file:
        process = subprocess.Popen(
            command,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None
        finally:
            # Raw results are replaced whole, so that nothing needs a gentle end.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def failure(path: Path, log: Path) -> str:
    """Returns one line on why a part failed."""
    text = log.read_text("utf-8", "replace") if log.exists() else ""
    # XLA ends the process at a flag that it does not know, after pages of help.
    found = re.search(
        r"Unknown flag.* in XLA_FLAGS: .*|Couldn't interpret value .*", text
    )
    if found is None and path.exists():
        for row in read(path).rows:
            if "error" in row:
                return f"{row['candidate']}: {row['error']}"[:300]
    found = found or re.search(r"^(error: |\w+ failed: ).*", text, re.MULTILINE)
    if found is not None:
        return found[0][:300]
    lines = text.strip().splitlines() or [f"{log} is empty"]
    return lines[-1].strip()[:300]
