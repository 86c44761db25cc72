"""Several processes, on one machine or many, as one run.

Every process runs the same command on its own devices. They join through JAX's
coordinator, make sure that they agree on what to run, and end together.
"""

import contextlib
import itertools
import json
import time
from collections.abc import Iterator, Mapping
from typing import Any

from train.errors import Interrupted, NotFiniteError, StorageError, UserError
from train.joining import Hosts, jax_state, join
from train.lifeline import Lifeline

__all__ = [
    "agree",
    "count",
    "gather",
    "has_failed",
    "is_leader",
    "joined",
    "telling",
]

_EXCHANGE_SECONDS = 3600  # One process may read a large data set much more slowly.

_LIFELINE_SECONDS = 5
# What all processes raise in the same step.
_SHARED = (Interrupted, NotFiniteError)

_exchanges = itertools.count()
_lifeline: Lifeline | None = None
_could_not_join = False


@contextlib.contextmanager
def joined(hosts: Hosts) -> Iterator[None]:
    """Joins the processes of a run, and ends them together.

    Must be entered before anything else uses JAX. An error in one process ends the
    others, with its message. Without a coordinator, it does nothing.

    Raises:
      UserError: if the processes cannot be joined.
    """
    global _lifeline, _could_not_join
    if not hosts.coordinator:
        yield
        return
    try:
        _lifeline = join(hosts)
    except BaseException:
        _could_not_join = True
        raise
    try:
        with telling():
            yield
    except _SHARED:
        _leave()
        raise
    _leave()


@contextlib.contextmanager
def telling() -> Iterator[None]:
    """Tells the other processes of an error in this one, at once, so that they end."""
    try:
        yield
    except _SHARED:
        raise
    except BaseException as error:
        if _lifeline is not None:
            if type(error).__name__ == "JaxRuntimeError" and not has_failed():
                # Perhaps because another process has gone: `Lifeline` knows, and ends
                # this one with a better message.
                time.sleep(_LIFELINE_SECONDS)
            known = isinstance(error, UserError | StorageError)
            _lifeline.fail(str(error) if known else repr(error))
        raise


def has_failed() -> bool:
    """Whether this process could not join the others, or has told them of an error.

    A regular exit would wait for them.
    """
    return _could_not_join or (_lifeline is not None and _lifeline.has_failed)


def count() -> int:
    """The number of processes of this run."""
    return jax_state().num_processes


def is_leader() -> bool:
    """Whether this is the process that writes logs, pictures and results."""
    return jax_state().process_id == 0


def gather(text: str) -> list[str]:
    """A text of every process, in the order of their numbers; all must call it.

    No process goes on before all have called it.
    """
    state = jax_state()
    if state.num_processes == 1:
        return [text]
    number = next(_exchanges)
    place, own = f"cnn_flax/{number}", state.process_id
    state.client.key_value_set(f"{place}/{own}", text)
    found = [
        state.client.blocking_key_value_get(f"{place}/{i}", _EXCHANGE_SECONDS * 1000)
        for i in range(state.num_processes)
    ]
    if number:  # All are here, so that all have read the exchange before.
        state.client.key_value_delete(f"cnn_flax/{number - 1}/{own}")
    return found


def agree(facts: Mapping[str, Any]) -> None:
    """Makes sure that all processes have the same facts.

    Args:
      facts: values that JSON can hold, by names for messages.

    Raises:
      UserError: in every process, if they differ; the message names what differs.
    """
    found = [json.loads(text) for text in gather(json.dumps(facts, default=str))]
    names = dict.fromkeys(name for theirs in found for name in theirs)
    differences = []
    for name in names:
        processes: dict[str, list[str]] = {}
        for i, theirs in enumerate(found):
            value = json.dumps(theirs.get(name))
            processes.setdefault(value, []).append(str(i))
        if len(processes) > 1:
            values = " and ".join(
                f"{value} in process {', '.join(numbers)}"
                for value, numbers in processes.items()
            )
            differences.append(f"{name} is {values}")
    if differences:
        raise UserError(
            "The processes of this run must be the same, and they differ: "
            f"{'; '.join(differences)}."
        )


def _leave() -> None:
    """Ends with the other processes, as planned."""
    import jax

    gather("")
    if _lifeline is not None:
        _lifeline.finish()
    jax.distributed.shutdown()
