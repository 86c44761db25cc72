"""How the processes of a run join: through JAX's coordinator, then by a `Lifeline`."""

import contextlib
import json
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from train.errors import UserError
from train.lifeline import Lifeline, Listener, absorb

__all__ = ["Hosts", "jax_state", "join"]

_AUTO = "auto"
# JAX's own limit for a process that does not answer, such as one whose machine lost its
# power. `Lifeline` notices a process that ends in any other way at once.
_HEARTBEAT_SECONDS = 45


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


def jax_state() -> Any:
    """The state of `jax.distributed`, which does not start JAX's backend."""
    from jax._src import distributed

    return distributed.global_state


def join(hosts: Hosts) -> Lifeline | None:
    """Connects to the other processes; None if there are none.

    Raises:
      UserError: if they cannot be reached, or do not all start in time.
    """
    import jax

    if "JAX_CPU_COLLECTIVES_IMPLEMENTATION" not in os.environ:
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
    # It would take SIGTERM, which the loop handles.
    jax.config.update("jax_enable_preemption_service", False)
    options: dict[str, Any] = _local_devices()
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
            jax_state().client = jax_state().service = None
            raise failure from error
    state = jax_state()
    if state.num_processes == 1:
        return None
    try:
        return _connect_lifeline(state, hosts.join_seconds)
    except (OSError, RuntimeError) as error:
        raise UserError(
            f"The processes cannot reach each other's ports: {error}."
        ) from error


def _local_devices() -> dict[str, Any]:
    """The GPUs of this process on SLURM, where it has one, or its machine to itself.

    JAX takes that with the number of the task on the machine, which is right only
    where every task sees all GPUs.
    """
    environment = os.environ
    visible = [x for x in environment.get("CUDA_VISIBLE_DEVICES", "").split(",") if x]
    tasks = environment.get("SLURM_STEP_TASKS_PER_NODE", "")
    if not visible or not tasks or "JAX_LOCAL_DEVICE_IDS" in environment:
        return {}
    # Such as "8", or "1(x4)" for one task on each of four machines.
    if len(visible) > 1 and re.match(r"1(\D|$)", tasks) is None:
        return {}
    return {"local_device_ids": list(range(len(visible)))}


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


@contextlib.contextmanager
def _gentle_client() -> Iterator[Callable[[], bool]]:
    """Keeps JAX's client from aborting this process; yields whether it was answered.

    Without a callback, the client aborts when it cannot connect; with any, even one
    that cannot be called, `jax.distributed.initialize` raises.
    """
    from unittest import mock  # It imports asyncio, which lists of recipes do not need.

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
    state = jax_state()
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
