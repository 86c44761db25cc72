"""Steps on many devices: `jax.jit` over a mesh with a sharded batch, or `jax.pmap`.

Under `jit` the compiler sees the global batch and inserts the collectives, so that
BatchNorm and every mean are global. Under `jax.pmap` each device sees its part of the
batch, and the step itself reduces over `AXIS`. JAX keeps `jax.pmap` in maintenance
only, as a wrapper of `jax.shard_map`: `jit` is the default.
"""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jax.tree_util import tree_map_with_path

from train.errors import UserError
from train.learn.sharding import MODEL, partition
from train.step_cache import cached_step

__all__ = [
    "AXIS",
    "Placement",
    "choose_devices",
    "compile_step",
    "jit_step",
    "pmap_step",
    "shard_rows",
]

AXIS = "data"


def choose_devices(count: int) -> list[Any]:
    """The first `count` devices; all of them, of every process, for 0.

    Raises:
      UserError: if there are fewer, or processes have different numbers of devices.
    """
    # Each process reads a contiguous part of a batch, for its own devices.
    devices = sorted(jax.devices(), key=lambda device: device.process_index)
    per_process = Counter(device.process_index for device in devices)
    if len(set(per_process.values())) > 1:
        raise UserError(
            "All processes must have the same number of devices, and they have "
            f"{', '.join(str(n) for _, n in sorted(per_process.items()))}."
        )
    if count > len(devices):
        raise UserError(
            f"{count} devices are asked for, and there are {len(devices)}: "
            f"{', '.join(map(str, devices))}."
        )
    return devices[: count or None]


class Placement:
    """The devices of a run, and how its arrays are sharded over them.

    Attributes:
      devices: the devices, in the order of the batch's parts.
      parts: number of parts that a batch is split into.
      replicated: sharding of the key and of all of the state that is not split over
        `model`: every device has a copy.
      sharded: sharding of batches along their first axis.
    """

    def __init__(self, devices: Sequence[Any] | None = None, model: int = 1) -> None:
        """Uses these devices; None for all of the machine.

        Args:
          devices: the devices.
          model: number of consecutive devices that share a part of the batch, and that
            the kernels are split over.

        Raises:
          UserError: if `model` does not divide their number, or those of a process.
        """
        self.devices = list(jax.devices() if devices is None else devices)
        processes = {device.process_index for device in self.devices}
        if len(self.devices) // len(processes) % model:
            each = " of each process" if len(processes) > 1 else ""
            raise UserError(
                f"--mesh has model={model}, which must divide the "
                f"{len(self.devices) // len(processes)} devices{each}."
            )
        self.parts, self._model = len(self.devices) // model, model
        mesh = Mesh(
            np.array(self.devices).reshape(self.parts, model),
            (AXIS, MODEL),
            axis_types=(AxisType.Auto, AxisType.Auto),
        )
        self.replicated = NamedSharding(mesh, PartitionSpec())
        self.sharded = NamedSharding(mesh, PartitionSpec(AXIS))

    @property
    def fetched(self) -> NamedSharding:
        """Sharding of rows that the host reads: several processes need a copy each."""
        processes = {device.process_index for device in self.devices}
        return self.sharded if len(processes) == 1 else self.replicated

    def replicate(self, tree: Any) -> Any:
        """Copies arrays, which are the same in every process, to every device."""
        if self.fetched == self.sharded:
            return jax.device_put(tree, self.replicated)
        return jax.jit(_identity, out_shardings=self.replicated)(tree)

    def fetch(self, tree: Any) -> Any:
        """Arrays of rows, as every process can read them."""
        return tree if self.fetched == self.sharded else self.replicate(tree)

    @property
    def is_one_cpu(self) -> bool:
        """Whether everything runs on a single CPU device."""
        return len(self.devices) == 1 and self.devices[0].platform == "cpu"

    def round_up(self, batch_size: int) -> int:
        """The batch size, rounded up to a multiple of the parts."""
        return -(-batch_size // self.parts) * self.parts

    def batch_unit(self, parts: int = 1, pairs: bool = False) -> int:
        """The number whose multiples are the batches that pass `check`."""
        return self.parts * math.lcm(parts, 2 if pairs else 1)

    def check(self, batch_size: int, parts: int = 1, pairs: bool = False) -> None:
        """Raises `UserError` if the devices cannot split the parts of a batch evenly.

        Args:
          batch_size: images per step, over all devices.
          parts: number of parts that the batch is processed in.
          pairs: whether images are mixed in pairs; both images of a pair must be on the
            same device.
        """
        devices = self.parts
        if batch_size % (devices * parts):
            times = f" times --gradient-accumulation {parts}" if parts > 1 else ""
            raise UserError(
                f"--batch-size must be a multiple of the {devices} devices{times}, got "
                f"{batch_size}."
            )
        if pairs and batch_size % (2 * devices):
            raise UserError(
                "--mixup and --cutmix mix pairs of images: --batch-size must be a "
                f"multiple of 2 for each of the {devices} devices, got {batch_size}."
            )

    def shapes(self, tree: Any, sharding: NamedSharding) -> Any:
        """Shapes, dtypes and shardings of arrays, to compile for or restore into."""
        return _shapes(tree, jax.tree.map(lambda leaf: sharding, tree))

    def state(self, tree: Any) -> Any:
        """The sharding of each array of a state; see `train.learn.sharding`."""

        def sharding(path, leaf):
            spec = partition(path, leaf.shape, self._model)
            return NamedSharding(self.sharded.mesh, spec)

        return tree_map_with_path(sharding, tree)

    def state_shapes(self, tree: Any) -> Any:
        """`shapes` of a state."""
        return _shapes(tree, self.state(tree))


def _shapes(tree: Any, shardings: Any) -> Any:
    def shape(leaf, sharding):
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

    return jax.tree.map(shape, tree, shardings)


def _identity(tree: Any) -> Any:
    return tree


def compile_step(
    step: Callable[..., Any],
    arguments: Sequence[Any],
    *,
    out: Any,
    donate: tuple[int, ...] = (),
    identity: Mapping[str, Any] | None = None,
) -> Callable[..., Any]:
    """Compiles a step for arguments of these shapes and shardings.

    The result raises for any others, so that a loop cannot silently recompile.

    Args:
      step: a pure function.
      arguments: trees of `jax.ShapeDtypeStruct` with shardings.
      out: shardings of the results, or one of all.
      donate: indices of the arguments whose buffers are donated to the results.
      identity: what the step follows from, in JSON's types, to find it in the cache of
        steps; None compiles it.
    """

    def compiled():
        jitted = jax.jit(step, out_shardings=out, donate_argnums=donate)
        return jitted.lower(*arguments).compile()

    if identity is None:
        return compiled()
    shardings = [str(sharding) for sharding in jax.tree.leaves(out)]
    identity = {**identity, "donate": donate, "out": shardings}
    return cached_step(identity, arguments, compiled)


def jit_step(
    step: Callable[[Any, Any], Any], identity: Mapping[str, Any] | None
) -> Callable[[Any, Any], Any]:
    """Compiles a step of a model's variables and a batch when it is first called.

    It is compiled once for each shape of the batch; the variables' are always the same.

    Args:
      step: a pure function of both.
      identity: as for `compile_step`.
    """
    compiled: dict[Any, Any] = {}

    def call(variables, batch):
        kind = tuple((np.shape(x), x.dtype) for x in jax.tree.leaves(batch))
        if kind not in compiled:
            arguments = jax.tree.map(_like, (variables, batch))
            compiled[kind] = compile_step(step, arguments, out=None, identity=identity)
        return compiled[kind](variables, batch)

    return call


def _like(x: Any) -> jax.ShapeDtypeStruct:
    sharding = x.sharding if isinstance(x, jax.Array) and x.committed else None
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)


def shard_rows(
    prepare: Callable[[Any, Any, Any], Any], placement: Placement
) -> Callable[[Any, Any, Any], Any]:
    """Runs a function of a batch on each device's own rows, under `jit`.

    Work per image or per pair needs no other device. `shard_map` says so explicitly;
    otherwise the compiler would gather a batch that is processed in a loop.

    Args:
      prepare: a function of keys, a batch and one replicated key; it returns a batch.
      placement: the placement of the batch.
    """
    sharded, replicated = PartitionSpec(AXIS), PartitionSpec()
    return jax.shard_map(
        prepare,
        mesh=placement.sharded.mesh,
        in_specs=(sharded, sharded, replicated),
        out_specs=sharded,
        check_vma=False,  # It does not support loops that only some devices run.
    )


def pmap_step(
    step: Callable[[Any, Any, Any], Any], devices: Sequence[Any]
) -> Callable[[Any, Any, Any], Any]:
    """The step under `jax.pmap`: each device runs it on its rows of the batch.

    Args:
      step: a pure function of a state, a batch and a key. It reduces over `AXIS`, so
        that its results are the same on every device.
      devices: the devices to run on.

    Returns:
      A function of the state, the global batch and the key, to be compiled.
    """
    run = jax.pmap(
        step,
        AXIS,
        in_axes=(None, 0, None),
        out_axes=(None, None),  # pyright: ignore[reportArgumentType]
        devices=devices,
    )

    def on_rows(state, batch, key):
        rows = jax.tree.map(lambda x: x.reshape(len(devices), -1, *x.shape[1:]), batch)
        return run(state, rows, key)

    return on_rows
