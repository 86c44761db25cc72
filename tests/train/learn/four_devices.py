"""Trains a few steps on one and on four devices; prints how the results compare.

A separate program, because the number of simulated devices is set when JAX starts.
"""

import contextlib
import dataclasses
import json
import sys
import tempfile
from pathlib import Path

import jax
import numpy as np
import pytest

from tests.support.policies import leave_out_operations
from tests.support.runs import untrained_run
from train.config import (
    Augment,
    Config,
    Distillation,
    Input,
    Network,
    Optimization,
    Parallelism,
    Selection,
    UnevenClasses,
    Unlabelled,
)
from train.data import eval_batches, prefetch_to_device
from train.learn.parallel import Placement, choose_devices
from train.run.checkpoint import Checkpoints
from train.run.evaluation import evaluate
from train.run.program import build, compile_train_step
from train.run.training_batches import training_batches

STEPS = 10

CONFIG = Config(
    input=Input("digits", image_size=8, batch_size=16, mean=(0.3,), std=(0.4,)),
    network=Network(
        "resnet18",
        {
            "stage_sizes": (1,),
            "width": 4,
            "small_inputs": True,
            "drop_path_rate": 0.5,
        },
        dtype="float64",
    ),
    augment=Augment(
        crop_padding=2,
        flip=0.5,
        policy="rand_augment",
        erase=0.5,
        mixup=0.2,
        cutmix=1.0,
    ),
    optimization=Optimization(warmup_epochs=0.1),
)

# Fewer labels than a batch, and unlabelled images: 16 per device, so that float32 holds
# their shares exactly.
FLEXMATCH = dataclasses.replace(
    CONFIG,
    selection=Selection(labels_per_class=1),
    augment=Augment(crop_padding=2, flip=0.5),
    unlabelled=Unlabelled(
        "rest", ratio=4, consistency="flexmatch", threshold=0.2, ramp_up_epochs=0.5
    ),
    epoch_steps=20,
)

# A momentum with which some weights are below 1 within these steps.
SOFTMATCH = dataclasses.replace(
    FLEXMATCH,
    unlabelled=dataclasses.replace(
        FLEXMATCH.unlabelled, consistency="softmatch", softmatch_momentum=0.5
    ),
)

# Its fairness term is of the whole batch: no sum over the devices' losses.
FREEMATCH = dataclasses.replace(
    FLEXMATCH,
    unlabelled=dataclasses.replace(
        FLEXMATCH.unlabelled,
        consistency="freematch",
        freematch_momentum=0.5,
        freematch_fairness=0.5,
    ),
)

# One operation compiles faster than two, and `FLEXMATCH` has them.
_PLAIN = dataclasses.replace(
    FLEXMATCH.unlabelled, strong_operations=1, strong_erase=0.0
)

# Two passes, and a random weight per logit.
ADAMATCH = dataclasses.replace(
    FLEXMATCH,
    unlabelled=dataclasses.replace(
        _PLAIN,
        consistency="adamatch",
        adamatch_momentum=0.5,
        ramp_up_epochs=0.0,
    ),
)

# Partners may be on other devices.
MIXMATCH = dataclasses.replace(
    FLEXMATCH,
    unlabelled=dataclasses.replace(
        FLEXMATCH.unlabelled, consistency="mixmatch", unlabelled_weight=75.0
    ),
)

# Random numbers decide which images its head learns from.
ABC = dataclasses.replace(
    FLEXMATCH,
    selection=Selection(labels_per_class=4, imbalance=4.0),
    uneven_classes=UnevenClasses(abc=True),
    unlabelled=dataclasses.replace(_PLAIN, consistency="fixmatch"),
)


def distilled_in_parts(folder):
    """A config with every other option of a step, in two parts.

    The teacher has another architecture; there are labelled and unlabelled images.
    """
    fields = {"stage_sizes": (1,), "growth_rate": 4, "small_inputs": True}
    network = Network("densenet121", fields, dtype="float64")
    teacher = dataclasses.replace(CONFIG, network=network)
    return dataclasses.replace(
        CONFIG,
        # No policy or erasing: they take long to compile, and `CONFIG` covers them.
        augment=Augment(crop_padding=2, flip=0.5, mixup=0.2, cutmix=1.0),
        optimization=dataclasses.replace(
            CONFIG.optimization, gradient_accumulation=2, clip_norm=1.0, ema_decay=0.9
        ),
        selection=Selection(labels_per_class=4),
        unlabelled=Unlabelled("rest", ratio=2),
        distillation=Distillation(str(untrained_run(folder / "teacher", teacher))),
    )


def run(parallelism, config=CONFIG):
    """The metrics of each step with the last state, and facts about the run."""
    program = build(dataclasses.replace(config, parallelism=parallelism))
    step = compile_train_step(program)
    state, metrics = program.init(), []
    before = jax.tree.map(np.array, state.method_state)  # A step donates the state.
    with contextlib.closing(training_batches(program)) as batches:
        for _ in range(STEPS):
            state, measured = step(state, next(batches), program.key)
            metrics.append(measured)
    text = step.as_text()  # pyright: ignore[reportFunctionMemberAccess]
    kinds = ("all-reduce", "all-gather", "all-to-all", "collective-permute")
    changes = jax.tree.map(np.not_equal, before, jax.device_get(state.method_state))
    return jax.device_get((metrics, state)), {
        "devices": len(program.placement.devices),
        "split": sum(
            not leaf.sharding.is_fully_replicated for leaf in jax.tree.leaves(state)
        ),
        "kernels": sum(
            path[-1].key == "kernel"
            for path, _ in jax.tree_util.tree_leaves_with_path(state.params)
        ),
        "remembered": sum(int(np.sum(leaf)) for leaf in jax.tree.leaves(changes)),
        "collectives": [kind for kind in kinds if kind in text],
    }


def difference(a, b):
    """The largest difference, over all metrics of all steps and the last state."""
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return max(float(np.abs(x - y).max()) for x, y in pairs)


def restored(folder):
    """Whether a checkpoint of a mesh is the same on one device, and the reverse."""
    one, mesh = (
        build(dataclasses.replace(CONFIG, parallelism=parallelism))
        for parallelism in (
            Parallelism(devices=1),
            Parallelism(mesh="data=2,model=2"),
        )
    )
    for name, program, other in (
        ("mesh to one", mesh, one),
        ("one to mesh", one, mesh),
    ):
        state = program.init()
        with Checkpoints(folder / name) as checkpoints:
            checkpoints.save(1, state, {})
        with Checkpoints(folder / name) as checkpoints:
            found, _ = checkpoints.restore(other.shapes)
        shardings = [leaf.sharding for leaf in jax.tree.leaves(found)]
        wanted = [leaf.sharding for leaf in jax.tree.leaves(other.shapes)]
        equal = jax.tree.map(np.array_equal, *jax.device_get((state, found)))
        yield name, shardings == wanted and all(jax.tree.leaves(equal))


def evaluations():
    """Evaluations of one model with several batch sizes and numbers of devices."""
    program = build(CONFIG)
    variables = jax.device_get(program.init().variables)
    for batch_size, count in ((16, 1), (64, 3), (359, 4), (1, 4)):
        placement = Placement(choose_devices(count))
        batches = eval_batches(
            program.test,
            batch_size=placement.round_up(batch_size),
            image_size=8,
            channels=1,
        )
        found = evaluate(
            jax.jit(program.eval_step),
            jax.device_put(variables, placement.replicated),
            prefetch_to_device(batches, placement.sharded),
        )
        yield {"images": len(found.index), "figures": found.figures()}


def main():
    leave_out_operations(pytest.MonkeyPatch())
    expected, _ = run(Parallelism(devices=1))
    report = {}
    for way, parallelism in {
        "jit on 4": Parallelism("jit", 4),
        "pmap on 4": Parallelism("pmap"),
        "mesh of 2 x 2": Parallelism(mesh="data=2,model=2"),
        "local on 4": Parallelism("pmap", bn="local"),
    }.items():
        other, report[way] = run(parallelism)
        report[way]["difference"] = difference(expected, other)
    with tempfile.TemporaryDirectory() as folder:
        for name, config in {
            "flexmatch": FLEXMATCH,
            "softmatch": SOFTMATCH,
            "freematch": FREEMATCH,
            "adamatch": ADAMATCH,
            "mixmatch": MIXMATCH,
            "abc": ABC,
            "taught, in parts": distilled_in_parts(Path(folder)),
        }.items():
            expected, _ = run(Parallelism(devices=1), config)
            for way in ("jit", "pmap"):
                other, found = run(Parallelism(way, 4), config)
                report[f"{way} on 4, {name}"] = found
                found["difference"] = difference(expected, other)
    with tempfile.TemporaryDirectory() as folder:
        report["restored"] = dict(restored(Path(folder)))
    report["evaluations"] = list(evaluations())
    json.dump(report, sys.stdout)


if __name__ == "__main__":
    main()
