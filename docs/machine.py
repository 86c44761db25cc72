"""When and on what something was measured."""

import datetime
import os
from collections.abc import Iterable, Mapping
from typing import Any

import jax

from benchmarks.timing import processor

__all__ = ["machine", "where"]


def machine() -> dict[str, str]:
    """Today and this machine, for a row of raw results."""
    return {
        "date": datetime.date.today().isoformat(),
        "machine": f"{processor()}, {os.cpu_count()} cores",
        "jax": jax.__version__,
    }


def where(rows: Iterable[Mapping[str, Any]]) -> str:
    """When and on what rows were measured, in words."""
    machines = {(row["date"], row["machine"], row["jax"]) for row in rows}
    return "; ".join(
        f"{date}, CPU ({machine}), JAX {version}"
        for date, machine, version in sorted(machines)
    )
