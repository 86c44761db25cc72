"""Accelerators that need not be there: their figures, and devices to compile for.

TPU programs are compiled by `libtpu` alone, without a TPU. Programs for GPUs are
compiled for as many CPU devices, from which their cost is estimated.
"""

import contextlib
import importlib.util
import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
from jax.experimental import topologies

from cnn_flax.installing import install_command
from train.errors import UserError

__all__ = ["CHIPS", "Chip", "Topology", "open_topology"]

_GIB = 2**30


@dataclass(frozen=True)
class Chip:
    """What one chip can do at most.

    Attributes:
      flops: bfloat16 operations per second in matrix products.
      memory: bytes of its main memory.
      memory_rate: bytes per second between that memory and the chip.
      link_rate: bytes per second that it sends to other chips, over all its links.
      source: where these figures are from.
      dimensions: of the network between TPUs; 0 for a GPU.
      largest: number of chips in the largest slice.
      config: what libtpu calls a chip whose cores are one device.
    """

    flops: float
    memory: float
    memory_rate: float
    link_rate: float
    source: str
    dimensions: int = 0
    largest: int = 0
    config: str = "default"


# The link rate is half of the documented rate of both directions.
CHIPS = {
    "v4": Chip(
        275e12,
        32 * _GIB,
        1200e9,
        300e9,
        "https://docs.cloud.google.com/tpu/docs/v4 and, for the six links of 50 GB/s, "
        "https://arxiv.org/abs/2304.01433",
        dimensions=3,
        largest=4096,
        config="megacore",
    ),
    "v5e": Chip(
        197e12,
        16 * _GIB,
        819e9,
        200e9,
        "https://docs.cloud.google.com/tpu/docs/v5e",
        dimensions=2,
        largest=256,
    ),
    "v5p": Chip(
        459e12,
        95 * _GIB,
        2765e9,
        600e9,
        "https://docs.cloud.google.com/tpu/docs/v5p",
        dimensions=3,
        largest=6144,
        config="megacore",
    ),
    "v6e": Chip(
        918e12,
        32 * _GIB,
        1638e9,
        400e9,
        "https://docs.cloud.google.com/tpu/docs/v6e",
        dimensions=2,
        largest=256,
    ),
    "a100": Chip(
        312e12,
        80e9,
        2039e9,
        300e9,
        "https://www.nvidia.com/en-us/data-center/a100/ (SXM, 80 GB)",
    ),
    "h100": Chip(
        989e12,
        80e9,
        3350e9,
        450e9,
        "https://www.nvidia.com/en-us/data-center/h100/ (SXM, without sparsity)",
    ),
    "h200": Chip(
        989e12,
        141e9,
        4800e9,
        450e9,
        "https://www.nvidia.com/en-us/data-center/h200/ (SXM, without sparsity)",
    ),
}
_MOST_GPUS = 4096  # Each is a device of the CPU.
_FLAT = ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
_DEEP = "2x2x1, 2x2x2, 2x2x4, 2x4x4, 4x4x4 and larger ones in multiples of 4"


@dataclass(frozen=True)
class Topology:
    """Chips to compile for.

    Attributes:
      name: as the user wrote it.
      chip: their figures.
      devices: one device per chip.
      is_estimate: whether the devices are CPUs that stand for GPUs.
    """

    name: str
    chip: Chip
    devices: Sequence[Any]
    is_estimate: bool

    @property
    def chips(self) -> int:
        """Number of chips."""
        return len(self.devices)


def open_topology(name: str) -> Topology:
    """Opens a topology, without the hardware.

    JAX must not have used a device before: on the first call for GPUs it is told to
    make that many of its CPU.

    Args:
      name: a TPU's name and its slice, such as `v5e:4x8`, or `gpu:`, a GPU's name and
        the number of them, such as `gpu:h200x8`.

    Raises:
      UserError: if there is no such topology, or a package is missing.
    """
    if match := re.fullmatch(r"gpu:(\w+?)(?:x([1-9]\d*))?", name):
        return _gpus(name, match[1], int(match[2] or 1))
    match = re.fullmatch(r"(\w+):(\d+(?:x\d+)*)", name)
    if not match or match[1] not in CHIPS or not CHIPS[match[1]].dimensions:
        raise _unknown(name)
    return _tpus(name, CHIPS[match[1]], match[2])


def _tpus(name: str, chip: Chip, slice_: str) -> Topology:
    sides = [int(side) for side in slice_.split("x")]
    if len(sides) != chip.dimensions or not 0 < math.prod(sides) <= chip.largest:
        raise _unknown(name)
    if chip.dimensions == 2 and slice_ not in _FLAT:
        raise _unknown(name)
    if importlib.util.find_spec("libtpu") is None:
        raise UserError(
            f"{name} needs libtpu, which compiles for TPUs without one: "
            f"{install_command('plan')}, on Linux."
        )
    options: dict[str, Any] = {"chip_config_name": chip.config}
    if math.prod(sides) == 1:
        options["chips_per_host_bounds"] = (1, 1, 1)
    _quieten_libtpu()
    try:
        found = topologies.get_topology_desc(name, "tpu", **options)
    except jax.errors.JaxRuntimeError as error:
        if "INVALID_ARGUMENT" in str(error):
            raise _unknown(name) from error
        reason = str(error).partition("\n")[0]
        raise UserError(f"libtpu cannot open {name}: {reason}") from error
    return Topology(name, chip, found.devices, is_estimate=False)


def _gpus(name: str, gpu: str, count: int) -> Topology:
    chip = CHIPS.get(gpu)
    if chip is None or chip.dimensions:
        raise _unknown(name)
    if count > _MOST_GPUS:
        raise UserError(f"{name} has too many GPUs: there can be {_MOST_GPUS:,}.")
    with contextlib.suppress(RuntimeError):  # Too late: JAX has made its devices.
        jax.config.update("jax_num_cpu_devices", count)
    devices = jax.devices("cpu")
    if len(devices) < count:
        raise UserError(
            f"{name} is estimated on {count} devices of the CPU, and there are "
            f"{len(devices)}. Set XLA_FLAGS="
            f"--xla_force_host_platform_device_count={count}."
        )
    return Topology(name, chip, devices[:count], is_estimate=True)


def _quieten_libtpu() -> None:
    """Tells libtpu that there is no TPU to look for, no log to write, no lock to take.

    It reads these variables when it is loaded.
    """
    for variable, value in (
        ("TPU_SKIP_MDS_QUERY", "1"),
        ("TPU_WORKER_HOSTNAMES", "localhost"),
        ("TPU_ACCELERATOR_TYPE", "v5litepod-1"),
        ("TPU_LOG_DIR", "disabled"),
        # A lock keeps two processes from running on one TPU; compiling runs on none.
        ("ALLOW_MULTIPLE_LIBTPU_LOAD", "1"),
    ):
        os.environ.setdefault(variable, value)


def _unknown(name: str) -> UserError:
    flat = " and ".join(_named(2))
    deep = " and ".join(_named(3))
    gpus = ", ".join(f"gpu:{gpu}" for gpu in _named(0))
    return UserError(
        f"There is no topology {name!r}. There are {flat} with {', '.join(_FLAT)}; "
        f"{deep} with {_DEEP}; and {gpus}, followed by x and their number: for example "
        "v5e:4x8, v5p:4x4x4, gpu:h200x8."
    )


def _named(dimensions: int) -> list[str]:
    return [name for name, chip in CHIPS.items() if chip.dimensions == dimensions]
