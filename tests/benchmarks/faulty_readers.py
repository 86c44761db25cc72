"""Prints what the fuzzer makes of readers that fail in every way."""

import json
import os
import random
import signal
import sys

import numpy as np

from benchmarks.fuzz import fuzz, smallest_faults
from benchmarks.fuzzing import worker
from benchmarks.fuzzing.readers import READERS, Reader


def in_third(name, fail):
    """A reader of which the third input fails."""

    def make(rng):
        return {"file": str(rng.random()).encode()}

    def read(folder):
        if (folder / "file").read_bytes() == third["file"]:
            fail()

    third = make(random.Random(f"{name} 0 2"))
    return Reader(make, read, ValueError)


def refuse(message="a message"):
    raise ValueError(message)


def fill():
    try:
        np.ones(2**28)
    except MemoryError as error:
        raise ValueError("too large") from error


def write():
    try:
        open("/dev/shm/fuzz-of-a-test", "w").close()
    except BaseException:
        pass


def loop():
    while True:
        pass


FAILURES = {
    "refused": refuse,
    "two lines": lambda: refuse("two\nlines"),
    "other": lambda: {}["a"],
    "memory": fill,
    "command": lambda: os.system("true"),
    "write": write,
    "crashed": lambda: signal.raise_signal(signal.SIGSEGV),
    "hung": loop,
}
READERS.clear()
READERS.update({name: in_third(name, fail) for name, fail in FAILURES.items()})
worker.SECONDS = 0.1
*_, (tallies, faults) = fuzz(list(READERS), 5 * len(READERS), 0, "fork")
counts = {
    name: {k: n for k, n in tally.counts.items() if n}
    for name, tally in tallies.items()
}
found = {f["reader"]: f["input"] for f in smallest_faults(faults)}
json.dump({"counts": counts, "found": found}, sys.stdout)
