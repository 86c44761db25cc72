"""Trains ten steps of three methods, alone or as one of several processes.

A separate program, because the devices are set when JAX starts. Its arguments are the
folder to write to, or "" to restore only; a folder whose checkpoints to restore and
compare, or ""; and the flags of `train.joining`. Process 0 writes the metrics, the last
state, an evaluation and a checkpoint of each method.
"""

import contextlib
import dataclasses
import pickle
import sys
from pathlib import Path

import jax
import numpy as np
import tyro

from tests.support.runs import untrained_run
from tests.train.learn.four_devices import CONFIG
from train import hosts, joining
from train.config import Augment, Distillation, Selection, Unlabelled
from train.data import eval_batches, prefetch_to_device
from train.run.checkpoint import Checkpoints
from train.run.evaluation import evaluate
from train.run.program import build, compile_eval_step, compile_train_step
from train.run.together import agree_on_data
from train.run.training_batches import training_batches

STEPS = 10


def configs(folder):
    optimization = dataclasses.replace(CONFIG.optimization, ema_decay=0.9)
    fields = {"stage_sizes": (1,), "width": 4, "small_inputs": True}
    network = dataclasses.replace(
        CONFIG.network, model_fields={**fields, "drop_path_rate": 0.5}
    )
    supervised = dataclasses.replace(CONFIG, network=network, optimization=optimization)
    weak = Augment(crop_padding=2, flip=0.5)
    teacher = dataclasses.replace(
        CONFIG, network=dataclasses.replace(network, model_fields=fields)
    )
    if not (folder / "teacher").exists():  # Written before there are several processes.
        untrained_run(folder / "teacher", teacher)
    return {
        "supervised": supervised,
        "fixmatch": dataclasses.replace(
            supervised,
            selection=Selection(labels_per_class=1),
            augment=weak,
            unlabelled=Unlabelled(
                "rest", ratio=2, consistency="fixmatch", threshold=0.2
            ),
            epoch_steps=20,
        ),
        "distillation": dataclasses.replace(
            supervised, distillation=Distillation(str(folder / "teacher"))
        ),
    }


def train(program):
    """Metrics of each step, and the last state."""
    step, state, metrics = compile_train_step(program), program.init(), []
    with contextlib.closing(training_batches(program)) as batches:
        for _ in range(STEPS):
            state, measured = step(state, next(batches), program.key)
            metrics.append(measured)
    return jax.device_get(metrics), state


def evaluated(program, state):
    batches = eval_batches(
        program.test,
        **program.eval_batch._asdict(),
        **program.decode_options(),
        **program.process,
    )
    on_device = prefetch_to_device(batches, program.placement.sharded)
    found = evaluate(compile_eval_step(program), state.variables, on_device)
    return dataclasses.asdict(found)


def saved(state):
    """What a checkpoint holds of a state."""
    return jax.device_get(dataclasses.replace(state, teacher=None))


def restored_equals(program, folder, name):
    with Checkpoints(folder / name) as checkpoints:
        state, meta = checkpoints.restore(program.shapes)
    expected = pickle.loads((folder / f"{name}.pickle").read_bytes())["state"]
    jax.tree.map(np.testing.assert_array_equal, saved(state), expected)
    assert meta["step"] == STEPS


def main():
    out, other, *flags = sys.argv[1:]
    folder = Path(out)
    shared = Path(out or other).parent
    with hosts.joined(tyro.cli(joining.Hosts, args=flags)):
        for name, config in configs(shared).items():
            program = build(config)
            agree_on_data(program)
            if other:
                restored_equals(program, Path(other), name)
            if not out:
                break
            metrics, state = train(program)
            evaluation = evaluated(program, state)
            with Checkpoints(folder / name) as checkpoints:
                checkpoints.save(STEPS, state, {"step": STEPS})
            report = {
                "metrics": metrics,
                "state": saved(state),
                "evaluation": evaluation,
            }
            if hosts.is_leader():
                (folder / f"{name}.pickle").write_bytes(pickle.dumps(report))


if __name__ == "__main__":
    main()
