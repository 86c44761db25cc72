"""What the processes of a run do together: agree, share a folder, and stop.

With one process, nothing here has an effect.
"""

import hashlib
import json
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from train import hosts
from train.config import Config
from train.config_file import flag_values
from train.data import BadImages, DecodeError, Source
from train.data.decode import to_array
from train.errors import UserError
from train.learn.parallel import Placement
from train.run.program import Program
from train.run.record import versions

__all__ = [
    "Stop",
    "agree_on_data",
    "agree_on_request",
    "check_shared",
    "share_unreadable",
]

Json = dict[str, Any]

# What a network file system may need to show another host a new file.
_SHARED_SECONDS = 60
_NAMES, _IMAGES = 4096, 8  # Numbers of a source's names and images that are compared.


def agree_on_request(config: Config, recipe: str, record: Json | None) -> None:
    """Makes sure that all processes are to run the same, with the same software.

    Args:
      config: the requested config.
      recipe: name of the requested recipe.
      record: what this process finds in the run's folder.

    Raises:
      UserError: if they differ, or the run cannot have several processes.
    """
    if hosts.count() == 1:
        return
    flags = {f"--{k.replace('_', '-')}": v for k, v in flag_values(config).items()}
    found = "nothing" if record is None else _digest(json.dumps(record).encode())
    hosts.agree(
        {"recipe": recipe, **flags, **versions(), "the content of --out": found}
    )
    if config.parallelism.parallel == "pmap":
        raise UserError("--parallel pmap is for one process: use --parallel jit.")
    if config.parallelism.devices:
        raise UserError("--devices is for one process: several use all their devices.")


def agree_on_data(program: Program) -> None:
    """Makes sure that all processes read the same images.

    Their number, their classes, and a sample of names and images are compared.

    Raises:
      UserError: if they differ.
    """
    if hosts.count() == 1:
        return
    sources = {
        "training": program.train,
        "evaluation": program.test,
        "unlabelled": program.unlabelled,
    }
    facts = {}
    for split, source in sources.items():
        if source is not None:
            facts |= {f"{k} of the {split} data": v for k, v in _facts(source).items()}
    hosts.agree(facts)


def check_shared(run: Path) -> None:
    """Makes sure that all processes see the run's folder, which process 0 has locked.

    Raises:
      UserError: in every process, if one does not.
    """
    if hosts.count() == 1:
        return
    lock = run / ".lock"
    written = hosts.gather(lock.read_text("utf-8") if hosts.is_leader() else "")[0]
    end = time.monotonic() + _SHARED_SECONDS
    while not (sees := _reads(lock, written)) and time.monotonic() < end:
        time.sleep(0.1)
    found = hosts.gather("yes" if sees else "")
    blind = [str(i) for i, answer in enumerate(found) if not answer]
    if blind:
        raise UserError(
            f"--out {run} must be in a file system that all processes share, and "
            f"process {', '.join(blind)} does not see what process 0 wrote there."
        )


def _reads(file: Path, text: str) -> bool:
    try:
        return file.read_text("utf-8") == text
    except OSError:
        return False


def share_unreadable(unreadable: Mapping[str, BadImages]) -> Json:
    """Tells all processes of the unreadable images that each has found.

    Returns:
      What was found in each source, over all processes, as `BadImages.found`.

    Raises:
      BadImagesError: if there are more than allowed.
    """
    ours = {split: bad.found for split, bad in unreadable.items()}
    if hosts.count() == 1:
        return ours
    for theirs in map(json.loads, hosts.gather(json.dumps(ours))):
        for split, found in theirs.items():
            for name, reason in found.items():
                if name not in ours[split]:
                    unreadable[split].add(DecodeError(name, reason))
    return {split: bad.found for split, bad in unreadable.items()}


class Stop:
    """A signal in any process stops all of them, after the same step.

    The signals are reduced on the devices, like a metric, and read two steps later: no
    process waits for them.
    """

    def __init__(self, placement: Placement) -> None:
        """Takes the devices to reduce on."""
        self._sharding = placement.sharded
        self._local = placement.parts // hosts.count()
        self._largest = jax.jit(jnp.max, out_shardings=placement.replicated)
        self._pending: deque[jax.Array] = deque()

    def __call__(self, signal: int, *, is_last: bool = False) -> int:
        """The signal that all processes stop for; 0 for none.

        Args:
          signal: the signal that this process has received; 0 for none.
          is_last: whether this is the last step, so that nothing may stay unread.
        """
        if hosts.count() == 1:
            return signal
        ours = np.full(self._local, signal, np.int32)
        signals = jax.make_array_from_process_local_data(self._sharding, ours)
        self._pending.append(self._largest(signals))
        if is_last:
            return max(map(int, self._pending))
        return int(self._pending.popleft()) if len(self._pending) > 2 else 0


def _facts(source: Source) -> Json:
    facts = {
        "number of images": len(source),
        "number of classes": len(source.class_names),
        "classes": _digest(json.dumps(list(source.class_names)).encode()),
    }
    if source.digest:  # Of shards: their images are not listed.
        return {**facts, "shards": source.digest}
    names = [source.name(i) for i in _sample(len(source), _NAMES)]
    images = hashlib.sha256()
    for i in _sample(len(source), _IMAGES):
        try:
            image, label = source.example(i, 0)
        except DecodeError:
            continue
        pixels = to_array(image)
        images.update(f"{pixels.shape} {label}".encode() + pixels.tobytes())
    columns = {
        name: rows[np.array(_sample(rows.shape[0], _NAMES), int)]
        for name, rows in source.columns.items()
    }
    return {
        **facts,
        "listing": _digest("\n".join(names).encode("utf-8", "surrogateescape")),
        "images": images.hexdigest()[:12],
        **{k: _digest(v.tobytes()) for k, v in columns.items()},
    }


def _sample(count: int, most: int) -> list[int]:
    """At most this many indices, evenly spaced."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).astype(int)).tolist()


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:12]
