"""The machine and the versions that a figure was measured with."""

import datetime
import importlib.metadata
import os
import platform
from collections.abc import Iterable, Mapping
from typing import Any

import jax

__all__ = ["environment", "measured_on", "today_here"]

# Packages and variables that a figure may depend on.
_PACKAGES = ("jax", "flax", "torch", "torchvision", "dm-pix", "pillow")
_VARIABLES = ("GLIBC_TUNABLES", "XLA_FLAGS")


def environment() -> dict[str, str]:
    """Device, versions and variables, for the header of a file of raw results."""
    device = jax.devices()[0]
    return {
        "device": f"{jax.device_count()} x {device.device_kind}",
        "processor": _processor(),
        "python": platform.python_version(),
        **{name: version for name in _PACKAGES if (version := _version(name))},
        **{name: value for name in _VARIABLES if (value := os.environ.get(name))},
    }


def today_here() -> dict[str, str]:
    """Date, machine and JAX's version, for a row of raw results without a header."""
    return {
        "date": datetime.date.today().isoformat(),
        "machine": _processor(),
        "jax": jax.__version__,
    }


def measured_on(rows: Iterable[Mapping[str, Any]]) -> str:
    """Describes in words when and on what rows with `today_here` were measured."""
    machines = {(row["date"], row["machine"], row["jax"]) for row in rows}
    return "; ".join(
        f"{date}, CPU ({machine}), JAX {version}"
        for date, machine, version in sorted(machines)
    )


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    """The processor's name as the system reports it, and the number of cores."""
    return f"{_processor_name()}, {os.cpu_count()} cores"


def _processor_name() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
