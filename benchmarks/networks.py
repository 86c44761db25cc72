"""Inference and training of whole models, each candidate in its own process."""

import contextlib
import dataclasses
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax

import cnn_flax
from benchmarks.measurements import Row
from benchmarks.options import Options
from benchmarks.plot import accuracy
from benchmarks.profiles import operations
from benchmarks.tables import IN_PARTS, OURS, Columns
from benchmarks.timing import PEER_PAUSE, Timing, take_turns
from benchmarks.worker_process import (
    WorkerError,
    WorkerProcess,
    has_torch,
    start_workers,
)
from train.errors import UserError

__all__ = ["CANDIDATES", "COLUMNS", "MODELS", "check_models", "measure_networks"]

# The default of `--models`: a selection, which a new model need not be added to.
MODELS = (
    "resnet50",
    "efficientnet_b0",
    "densenet121",
    "vgg16",
    "alexnet",
    "googlenet",
    "seresnet50",
    "resnext50_32x4d",
    "resnet50_dcn",
)

_AUGMENTING = "ours augmenting"  # In training alone.
_PLAIN = "plain Flax"
_PRODUCT = "matrix product"

# Name -> the module that builds its program, and additional arguments.
CANDIDATES: dict[str, tuple[str, dict[str, Any]]] = {
    OURS: ("benchmarks.network_programs", {}),
    IN_PARTS: ("benchmarks.network_programs", {"parts": True}),
    _AUGMENTING: ("benchmarks.network_programs", {"augmented": True}),
    _PLAIN: ("benchmarks.network_programs", {"plain": True}),
    "torch eager": ("benchmarks.torch_programs", {}),
    "torch channels_last": ("benchmarks.torch_programs", {"channels_last": True}),
    "torch.compile": (
        "benchmarks.torch_programs",
        {"channels_last": True, "compiled": True},
    ),
}

COLUMNS: Columns = {
    "images/s": ("images_per_second", ",.1f"),
    "augmentation": ("augmentation_share", ".0%"),
    "start, s": ("first_step", ".1f"),
    "cold start, s": ("first_step_cold", ".1f"),
    "warm start, s": ("first_step_warm", ".1f"),
    "memory, MB": ("peak_memory", ",.0f", 1e-6),
    "TFLOP/s": ("flops_per_second", ",.3f", 1e-12),
    "of the peak": ("share_of_peak", ".0%"),
    "GB/s": ("bytes_per_second", ",.1f", 1e-9),
}

# Fields that make a model equal to the peers'.
_PEER_FIELDS = {"googlenet": {"aux_logits": False}}
_QUICK_MODEL = "resnet18"  # With one block.

_PROFILED_STEPS = 3

_CACHES = ("JAX_COMPILATION_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR")


def measure_networks(task: str, options: Options, batch_size: int) -> Iterator[Row]:
    """Measures models together with the device's peak rates, in the same run.

    Args:
      task: "inference" or "training".
      options: of the command line.
      batch_size: images per step, if the options have none.

    Yields:
      Rows, model by model; if a candidate cannot be started, its row has `error`.

    Raises:
      UnknownModelError: there is no such model.
      UserError: there is no such candidate.
    """
    if options.quick:
        options = _quick(options)
    if options.models == ("all",):
        names = tuple(n for n in cnn_flax.list_models() if accuracy(n) is not None)
        options = dataclasses.replace(options, models=names)
    check_models(options)
    for name in options.models or MODELS:
        yield from _measure(task, name, options, options.batch_size or batch_size)


def check_models(options: Options) -> None:
    """Raises `UnknownModelError` for a model that is not in the registry."""
    for name in options.models or ():
        cnn_flax.model_info(name)


def _quick(options: Options) -> Options:
    return dataclasses.replace(
        options,
        models=options.models or (_QUICK_MODEL,),
        batch_size=options.batch_size or 2,
        image_size=options.image_size or 32,
    )


def _measure(task: str, name: str, options: Options, batch_size: int) -> list[Row]:
    size = options.image_size or cnn_flax.model_info(name).image_size
    fields: dict[str, Any] = _PEER_FIELDS.get(name, {})
    if options.quick and name == _QUICK_MODEL:
        fields = {"stage_sizes": (1,)}
    arguments = {
        "model": name,
        "fields": fields,
        "batch_size": batch_size,
        "image_size": size,
        "dtype": options.dtype,
    }
    case = f"{name}, batch {batch_size}, {size} px, {options.dtype}"
    # Per image: a training step counts as three forward passes.
    summary = cnn_flax.summary(cnn_flax.create_model(name, **fields), size)
    flops = 2 * summary.multiply_adds * (3 if task == "training" else 1)
    programs = {
        candidate: (f"{module}:{task}", {**arguments, **more})
        for candidate, (module, more) in options.select(CANDIDATES).items()
        if _exists(candidate, module, name, task)
    }
    rows: dict[str, Row] = {
        c: {"case": case, "candidate": c, "model": name} for c in programs
    }
    starts = {
        name: (rows[name], program, options) for name, program in programs.items()
    }
    limits = _limits(options) if options.limits else {}
    with (
        start_workers(starts, rows, _started) as workers,
        start_workers(limits) as limit_workers,
    ):
        timings = take_turns(
            {c: worker.run for c, worker in {**workers, **limit_workers}.items()},
            **options.turns(pause=PEER_PAUSE),
        )
        memory = {c: worker.peak_memory() for c, worker in workers.items()}
        work = {limit: worker.info for limit, worker in limit_workers.items()}
        if options.profiles is not None and OURS in workers:
            folder = options.profiles / f"{task}_{name}_{batch_size}"
            rows[OURS] |= _profiled(workers[OURS], folder)
    for candidate in memory:
        timing = timings[candidate]
        images_per_second = batch_size / timing.median
        rows[candidate] |= {
            **timing.row(),
            "images_per_second": images_per_second,
            "peak_memory": memory[candidate],
            "flops_per_second": flops * images_per_second,
        }
        if _PRODUCT in work:
            peak = work[_PRODUCT]["flops"] / timings[_PRODUCT].median
            rows[candidate]["share_of_peak"] = flops * images_per_second / peak
    if {OURS, _AUGMENTING} <= memory.keys():
        share = 1 - timings[OURS].median / timings[_AUGMENTING].median
        rows[_AUGMENTING]["augmentation_share"] = share
    return [*rows.values(), *_limit_rows(case, work, timings)]


def _exists(candidate: str, module: str, name: str, task: str) -> bool:
    if candidate == _AUGMENTING:
        return task == "training"
    if candidate == IN_PARTS:
        return task == "inference" and jax.devices()[0].platform == "cpu"
    if module == "benchmarks.torch_programs":
        return has_torch()
    # Flax has no deformable convolution.
    return candidate != _PLAIN or "_dcn" not in name


def _profiled(worker: WorkerProcess, folder: Path) -> Row:
    """Returns the operations of a few steps, or why there are none, for a row."""
    try:
        worker.profile(_PROFILED_STEPS, folder)
        return {"operations": operations(folder)}
    except (UserError, WorkerError) as error:
        return {"no_profile": str(error).splitlines()[0]}


@contextlib.contextmanager
def _started(
    row: Row, arguments: tuple[str, Mapping[str, Any]], options: Options
) -> Iterator[WorkerProcess]:
    """A worker, by default with an earlier one's compiled programs; records starts."""
    if not options.warm_start:
        with WorkerProcess(*arguments) as worker:
            row["first_step"] = worker.first_step
            yield worker
        return
    with tempfile.TemporaryDirectory() as cache:
        environment = {name: os.path.join(cache, name) for name in _CACHES}
        worker = WorkerProcess(*arguments, environment)
        row["first_step_cold"] = worker.first_step
        if not options.quick:
            worker.close()
            worker = WorkerProcess(*arguments, environment)
            row["first_step_warm"] = worker.first_step
        with worker:
            yield worker


def _limits(options: Options) -> dict[str, tuple[str, dict[str, Any]]]:
    """Programs that reach the device's peak rates."""
    if options.quick:
        size, megabytes = 128, 1
    elif jax.devices()[0].platform == "cpu":
        size, megabytes = 2048, 256
    else:
        size, megabytes = 8192, 2048
    product = {"size": size, "dtype": options.dtype}
    return {
        _PRODUCT: ("benchmarks.network_programs:matrix_product", product),
        "copy": ("benchmarks.network_programs:copy", {"megabytes": megabytes}),
    }


def _limit_rows(
    case: str, work: Mapping[str, Any], timings: Mapping[str, Timing]
) -> list[Row]:
    rows = []
    for limit, amounts in work.items():
        timing = timings[limit]
        rates = {f"{k}_per_second": v / timing.median for k, v in amounts.items()}
        row = {"case": case, "candidate": limit, "limit": True}
        rows.append({**row, **timing.row(), **rates})
    return rows
