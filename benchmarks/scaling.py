"""A training step on 1, 2, 4 and 8 devices, with `jit` over a mesh and with `pmap`.

On a CPU, devices are simulated: they share the cores, so the figures show only what
sharding costs, and nothing can become faster.
"""

import os
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

import cnn_flax
from benchmarks.measurements import Row
from benchmarks.network_programs import stepping, training_step
from benchmarks.options import Options
from benchmarks.tables import Columns
from benchmarks.timing import take_turns
from benchmarks.worker_process import Program, start_workers
from train.learn.parallel import AXIS, Placement, compile_step, pmap_step

__all__ = ["COLUMNS", "TITLE", "dispatch", "measure", "step"]

TITLE = "ResNet-18 on several devices, with weak and strong scaling"
COLUMNS: Columns = {
    "images/s": ("images_per_second", ",.1f"),
    "of one device": ("of_one_device", ".0%"),
}

_COUNTS = (1, 2, 4, 8)


def measure(options: Options) -> list[Row]:
    """Measures a step, and the dispatch of an empty step to the devices.

    By default the batch is 8 per device (weak scaling) or 32 in total (strong
    scaling), at 64 px.
    """
    available = jax.device_count()
    simulated = jax.devices()[0].platform == "cpu"
    counts = [n for n in _COUNTS if simulated or n <= available]
    counts = counts[:2] if options.quick else counts
    size = options.image_size or (16 if options.quick else 64)
    batch_size = options.batch_size or (1 if options.quick else 8)
    net = {"stage_sizes": (1,), "width": 8} if options.quick else {}
    model = {"fields": net, "image_size": size, "dtype": options.dtype}
    rows = []
    kinds = ("weak", "dispatch") if options.quick else ("weak", "strong", "dispatch")
    for kind in kinds:
        cases: dict[tuple[str, int], dict[str, Any]] = {}
        for count in counts:
            images = batch_size * {"weak": count, "strong": 4}.get(kind, 0)
            for wrapper in ("jit", "pmap"):
                about = {"devices": count, "wrapper": wrapper}
                step_of = {"batch_size": images, **model} if images else {}
                # The devices share the batch evenly.
                if images % count == 0:
                    cases[wrapper, count] = {**about, **step_of}
        builder = f"benchmarks.scaling:{'dispatch' if kind == 'dispatch' else 'step'}"
        arguments = {
            name: (builder, one, _simulating(one["devices"]) if simulated else {})
            for name, one in cases.items()
        }
        with start_workers(arguments) as workers:
            timings = take_turns(
                {str(name): worker.run for name, worker in workers.items()},
                **options.turns(block_seconds=0.5),
            )
        rates: dict[tuple[str, int], float] = {}
        for name, one in cases.items():
            wrapper, count = name
            timing, images = timings[str(name)], one.get("batch_size")
            each = f"batch {images}" if images else "an empty step"
            row: Row = {
                "case": f"{kind}, {count} device{'s' * (count > 1)}, {each}",
                "candidate": wrapper,
                "devices": count,
                **timing.row(),
            }
            if images:
                rates[name] = row["images_per_second"] = images / timing.median
                row["of_one_device"] = rates[name] / rates[wrapper, 1]
            rows.append(row)
    return rows


def _simulating(devices: int) -> dict[str, str]:
    flag = f"--xla_force_host_platform_device_count={devices}"
    return {"XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {flag}".strip()}


def step(
    devices: int,
    wrapper: str,
    batch_size: int,
    image_size: int,
    fields: dict[str, Any],
    dtype: str,
) -> tuple[Program, dict[str, Any]]:
    """A training step on the first devices, for a worker process."""
    placement = Placement(jax.devices()[:devices])
    axis = AXIS if wrapper == "pmap" else None
    net = cnn_flax.create_model(
        "resnet18",
        bn_axis_name=axis,
        small_inputs=True,
        dtype=jnp.dtype(dtype),
        **fields,
    )
    one_step, state, batch = training_step(net, batch_size, image_size, axis)
    return _placed(one_step, state, batch, placement, wrapper)


def dispatch(devices: int, wrapper: str) -> tuple[Program, dict[str, Any]]:
    """A nearly empty step on the first devices, for a worker process."""

    def one_step(state: Any, batch: Any, key: Any) -> Any:
        del batch, key
        return state + 1, state

    placement = Placement(jax.devices()[:devices])
    state, batch = jnp.zeros(()), {"image": jnp.zeros((devices, 1))}
    return _placed(one_step, state, batch, placement, wrapper)


def _placed(
    one_step: Any, state: Any, batch: Any, placement: Placement, wrapper: str
) -> tuple[Program, dict[str, Any]]:
    state = jax.device_put(state, placement.replicated)
    batch = jax.device_put(batch, placement.sharded)
    key = jax.device_put(jax.random.key(1), placement.replicated)
    if wrapper == "pmap":
        one_step = pmap_step(one_step, placement.devices)
    shapes = partial(placement.shapes, sharding=placement.replicated)
    compiled = compile_step(
        one_step,
        (shapes(state), placement.shapes(batch, placement.sharded), shapes(key)),
        out=placement.replicated,
        donate=(0,),
    )
    return stepping(compiled, state, batch, key), {}
