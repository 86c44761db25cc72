"""Several processes, on one machine or many, as one run.

Every process runs the same command on its own devices. They join through JAX's
coordinator, make sure that they agree on what to run, and end together.
"""

import contextlib
import itertools
import json
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from unittest import mock

from train.errors import Interrupted, NotFiniteError, StorageError, UserError
from train.lifeline import Lifeline, Listener, absorb

__all__ = [
    "Hosts",
    "agree",
    "count",
    "gather",
    "has_failed",
    "is_leader",
    "joined",
    "telling",
]

_AUTO = "auto"
# JAX's own limit for a process that does not answer, such as one whose machine lost its
# power. `Lifeline` notices a process that ends in any other way at once.
_HEARTBEAT_SECONDS = 45
_EXCHANGE_SECONDS = 3600  # One process may read a large data set much more slowly.

_LIFELINE_SECONDS = 5
# What all processes raise in the same step.
_SHARED = (Interrupted, NotFiniteError)

_exchanges = itertools.count()
_lifeline: Lifeline | None = None


@dataclass(frozen=True)
class Hosts:
    """The processes that train together, each with its own devices."""

    coordinator: str = ""
    """Train with other processes, which run the same command: address HOST:PORT of
    process 0, where the others find it; or auto, on SLURM, Kubernetes, Open MPI and TPU
    pods, where all three flags are found."""
    processes: int = 1
    """Number of these processes."""
    process: int = 0
    """Number of this process, from 0."""
    join_seconds: int = 300
    """How long to wait for the other processes to start."""

    def __post_init__(self):
        given = self.processes != 1 or self.process != 0
        if self.coordinator in ("", _AUTO) and given:
            raise UserError("--processes and --process need --coordinator HOST:PORT.")
        if self.coordinator in ("", _AUTO):
            return
        port = re.fullmatch(r"\S+:(\d{1,5})", self.coordinator)
        if port is None or not 0 < int(port[1]) < 2**16:
            raise UserError(
                f"--coordinator must be HOST:PORT or auto, got {self.coordinator}."
            )
        if self.processes < 1:
            raise UserError(f"--processes must be at least 1, got {self.processes}.")
        if not 0 <= self.process < self.processes:
            raise UserError(
                f"--process must be 0 to {self.processes - 1}, as --processes is "
                f"{self.processes}; got {self.process}."
            )
        if self.join_seconds < 1:
            raise UserError(
                f"--join-seconds must be at least 1, got {self.join_seconds}."
            )


@contextlib.contextmanager
def joined(hosts: Hosts) -> Iterator[None]:
    """Joins the processes of a run, and ends them together.

    Must be entered before anything else uses JAX. An error in one process ends the
    others, with its message. Without a coordinator, it does nothing.

    Raises:
      UserError: if the processes cannot be joined.
    """
    global _lifeline
    if not hosts.coordinator:
        yield
        return
    _lifeline = _join(hosts)
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
            if type(error).__name__ == "JaxRuntimeError":
                # Perhaps because another process has gone: `Lifeline` knows, and ends
                # this one with a better message.
                time.sleep(_LIFELINE_SECONDS)
            known = isinstance(error, UserError | StorageError)
            _lifeline.fail(str(error) if known else repr(error))
        raise


def has_failed() -> bool:
    """Whether the other processes were told of an error in this one.

    They are gone then, and a regular exit would wait for them.
    """
    return _lifeline is not None and _lifeline.has_failed


def count() -> int:
    """The number of processes of this run."""
    return _state().num_processes


def is_leader() -> bool:
    """Whether this is the process that writes logs, pictures and results."""
    return _state().process_id == 0


def gather(text: str) -> list[str]:
    """A text of every process, in the order of their numbers; all must call it.

    No process goes on before all have called it.
    """
    state = _state()
    if state.num_processes == 1:
        return [text]
    place = f"cnn_flax/{next(_exchanges)}"
    state.client.key_value_set(f"{place}/{state.process_id}", text)
    return [
        state.client.blocking_key_value_get(f"{place}/{i}", _EXCHANGE_SECONDS * 1000)
        for i in range(state.num_processes)
    ]


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


def _state() -> Any:
    """The state of `jax.distributed`, which does not start JAX's backend."""
    from jax._src import distributed

    return distributed.global_state


def _join(hosts: Hosts) -> Lifeline | None:
    """Connects to the other processes; None if there are none."""
    import jax

    if "JAX_CPU_COLLECTIVES_IMPLEMENTATION" not in os.environ:
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
    # It would take SIGTERM, which the loop handles.
    jax.config.update("jax_enable_preemption_service", False)
    options: dict[str, Any] = {}
    if hosts.coordinator != _AUTO:
        options = {
            "coordinator_address": hosts.coordinator,
            "num_processes": hosts.processes,
            "process_id": hosts.process,
            "cluster_detection_method": "deactivate",
        }
    with _gentle_client() as reached:
        try:
            jax.distributed.initialize(
                **options,
                initialization_timeout=hosts.join_seconds,
                heartbeat_timeout_seconds=_HEARTBEAT_SECONDS,
            )
        except (RuntimeError, ValueError) as error:
            failure = _not_joined(hosts, reached(), error)
            # At exit, JAX would shut down what has never started, and fail again.
            _state().client = _state().service = None
            raise failure from error
    state = _state()
    if state.num_processes == 1:
        return None
    try:
        return _connect_lifeline(state, hosts.join_seconds)
    except OSError as error:
        raise UserError(
            f"The processes cannot reach each other's ports: {error}."
        ) from error


def _connect_lifeline(state: Any, seconds: int) -> Lifeline:
    place = "cnn_flax/lifeline"
    if state.process_id == 0:
        listener = Listener()
        found = {
            "port": listener.port,
            "token": listener.token,
            "processes": state.num_processes,
        }
        state.client.key_value_set(place, json.dumps(found))
        return listener.accept(state.num_processes - 1, seconds)
    found = json.loads(state.client.blocking_key_value_get(place, seconds * 1000))
    host, _ = _host_and_port(state.coordinator_address)
    lifeline = Lifeline.connect(
        host, found["port"], found["token"], state.process_id, seconds
    )
    if found["processes"] != state.num_processes:
        error = UserError(
            f"--processes is {found['processes']} in process 0 and "
            f"{state.num_processes} in process {state.process_id}."
        )
        lifeline.fail(str(error))
        raise error
    return lifeline


def _leave() -> None:
    """Ends with the other processes, as planned."""
    import jax

    gather("")
    if _lifeline is not None:
        _lifeline.finish()
    jax.distributed.shutdown()


@contextlib.contextmanager
def _gentle_client() -> Iterator[Callable[[], bool]]:
    """Keeps JAX's client from aborting this process; yields whether it was answered.

    Without a callback, the client aborts when it cannot connect; with any, even one
    that cannot be called, `jax.distributed.initialize` raises.
    """
    from jax._src.lib import _jax  # pyright: ignore[reportPrivateImportUsage]

    original = _jax.get_distributed_runtime_client
    answered: list[Callable[[], bool]] = []

    def client(address: str, process: int, **options: Any) -> Any:
        if process and not options.get("mtls_cert_file"):
            port, reached = absorb(*_host_and_port(address))
            answered.append(reached)
            address = f"127.0.0.1:{port}"
        callback = {"missed_heartbeat_callback": lambda status: None}
        return original(address, process, **callback, **options)

    with mock.patch.object(_jax, "get_distributed_runtime_client", client):
        yield lambda: all(reached() for reached in answered)


def _not_joined(hosts: Hosts, answered: bool, error: Exception) -> UserError:
    """The error of a process that could not join the others."""
    state = _state()
    if state.client is None and hosts.coordinator == _AUTO:
        return UserError(
            f"--coordinator auto does not find the other processes: {error} Give "
            "--coordinator HOST:PORT, --processes and --process."
        )
    address = state.coordinator_address or hosts.coordinator
    if not answered:
        return UserError(
            f"The coordinator {address} did not answer within {hosts.join_seconds} s. "
            "It is process 0: start it too, and check the address and the firewall."
        )
    if state.client is None:
        return UserError(f"The coordinator cannot listen at {address}: {error}.")
    return UserError(
        f"Not all {state.num_processes} processes joined at {address} within "
        f"{hosts.join_seconds} s: each must be started once, with its own --process, "
        "and with the same --processes."
    )


def _host_and_port(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)
