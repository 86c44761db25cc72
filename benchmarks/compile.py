"""Compilation of a training step: cold, with a warm cache, and with the step kept."""

import os
import tempfile
import time
from functools import partial
from typing import Any, NoReturn

import jax

import cnn_flax
from benchmarks.measurements import Row
from benchmarks.network_programs import training_step
from benchmarks.networks import check_models
from benchmarks.options import Options
from benchmarks.tables import Columns
from benchmarks.timing import Timing, repeated
from benchmarks.worker_process import Program, WorkerProcess
from train.step_cache import cached_step

__all__ = ["COLUMNS", "TITLE", "measure", "program"]

TITLE = "tracing and compiling a training step"
COLUMNS: Columns = {
    "traced, s": ("traced", ".2f"),
    "compiled, s": ("compiled", ".2f"),
    "first step after the start, s": ("first_step", ".2f"),
    "of cold": ("of_cold", ".0%"),
}

MODELS = ("resnet50", "efficientnet_b0", "densenet201")


def measure(options: Options) -> list[Row]:
    """Starts each model three times cold, warm and resumed, at batch 8.

    Each start is a process. A cold one has a new, empty cache. The warm one traces the
    step and finds the compiled program there; the resumed one finds the whole step, as
    `python -m train` does (`train.step_cache`).
    """
    check_models(options)
    size = options.image_size or (32 if options.quick else 224)
    batch_size = options.batch_size or (1 if options.quick else 8)
    rows = []
    for name in options.models or (("resnet18",) if options.quick else MODELS):
        case = f"{name}, batch {batch_size}, {size} px, {options.dtype}"
        arguments = {
            "model": name,
            "fields": {"stage_sizes": (1,)} if options.quick else {},
            "batch_size": batch_size,
            "image_size": size,
            "dtype": options.dtype,
        }
        starts: dict[str, list[dict[str, float]]]
        starts = {"cold": [], "warm": [], "resumed": []}
        for _ in range(1 if options.quick else options.blocks or 3):
            with tempfile.TemporaryDirectory() as cache:
                for start, seconds in starts.items():
                    environment = {
                        "JAX_COMPILATION_CACHE_DIR": cache,
                        "CNN_FLAX_STEP_CACHE": "1",
                    }
                    builder = "benchmarks.compile:program"
                    known = {**arguments, "resumed": start == "resumed"}
                    with WorkerProcess(builder, known, environment) as worker:
                        seconds.append({**worker.info, "first_step": worker.first_step})
        medians = {}
        for candidate, seconds in starts.items():
            whole = Timing(tuple(s["traced"] + s["compiled"] for s in seconds))
            medians[candidate] = whole.median
            row: Row = {"case": case, "candidate": candidate}
            row |= {k: Timing(tuple(s[k] for s in seconds)).median for k in seconds[0]}
            # A single figure has no quartiles.
            row |= whole.row() if len(seconds) > 1 else {"median": whole.median}
            rows.append(row)
            if candidate != "cold":
                row["of_cold"] = whole.median / medians["cold"]
    return rows


def program(
    model: str,
    fields: dict[str, Any],
    batch_size: int,
    image_size: int,
    dtype: str,
    resumed: bool = False,
) -> tuple[Program, dict[str, float]]:
    """A training step and the seconds of its compilation, for a worker process.

    Args:
      model: name in the registry.
      fields: of the model.
      batch_size: images per step.
      image_size: height and width, in pixels.
      dtype: of the computation.
      resumed: whether the step was kept by an earlier process, and is only read.
    """
    assert "JAX_COMPILATION_CACHE_DIR" in os.environ
    net = cnn_flax.create_model(model, dtype=jax.numpy.dtype(dtype), **fields)
    step, state, batch = training_step(net, batch_size, image_size)
    arguments = (state, batch, jax.random.key(1))
    identity = {"model": model, "fields": str(fields), "dtype": dtype}
    start = time.perf_counter()
    if resumed:
        compiled = cached_step(identity, arguments, _not_kept)
        seconds = {"traced": 0.0, "compiled": time.perf_counter() - start}
    else:
        lowered = jax.jit(step).lower(*arguments)
        traced = time.perf_counter()
        compiled = lowered.compile()
        seconds = {"traced": traced - start, "compiled": time.perf_counter() - traced}
        cached_step(identity, arguments, lambda: compiled)
    return repeated(partial(compiled, *arguments)), seconds


def _not_kept() -> NoReturn:
    raise RuntimeError("The cold start has not kept its step.")
