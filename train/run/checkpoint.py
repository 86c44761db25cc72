"""A run's checkpoints, `RUN/checkpoints/STEP`, written by Orbax.

Saves are atomic: a run that is killed during a save resumes from the checkpoint before.
So does one whose last checkpoint was damaged later, by a disk or by hand.
"""

import contextlib
import copy
import itertools
import json
import shutil
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from cnn_flax.weights.runs import (
    UNREADABLE,
    last_whole,
    opened,
    plainly_named,
    unopenable,
    without_late_errors,
)
from train import hosts
from train.learn.objectives import OBJECTIVE
from train.learn.step import TrainState

__all__ = ["KEEP", "Checkpoints"]

# Number of checkpoints that a run keeps, the last ones.
KEEP = 2

# Name of the method's state in a checkpoint; older versions wrote it too.
_METHOD_STATE = "memory"

# Name of the objective's own parameters in the optimizer's state, in checkpoints whose
# `meta` has no format.
_OLD_OBJECTIVE = "objective"
_FORMAT = 2

_SECONDS = 10  # That a save may take if its folder is gone.
_UNFINISHED = "*.orbax-checkpoint-tmp*"
_DAMAGED = "damaged-checkpoints"  # Next to the folder of checkpoints.


class Checkpoints:
    """The last checkpoints of a run.

    Each holds three items: `model`, the variables, which `cnn_flax.load_pretrained`
    reads; `rest`, the remaining state; and `meta`, JSON. If the state has a moving
    average of the variables, there is an item `ema` of the same structure as `model`;
    if the objective has its own parameters, an item `objective`.

    Attributes:
      damaged: what is wrong with the checkpoints that `restore` passed over, by step.
    """

    def __init__(self, run: Path, *, keep: int = KEEP) -> None:
        """Opens the run's folder of checkpoints; removes saves that were cut off.

        Checkpoints whose metadata is damaged are moved into `damaged-checkpoints`, for
        Orbax opens no folder with one; not if all are. The caller holds the run's lock.

        Args:
          run: the run's folder.
          keep: number of checkpoints to keep, the last ones.

        Raises:
          WeightsError: if the metadata of all is damaged.
        """
        self._run = run
        folder = run / "checkpoints"
        folder.mkdir(parents=True, exist_ok=True)
        # Orbax replaces the unfinished save of a step only with one of the same step.
        for unfinished in folder.glob(_UNFINISHED) if hosts.is_leader() else ():
            shutil.rmtree(unfinished, ignore_errors=True)
        self.damaged = self._set_aside_unopenable()
        with contextlib.ExitStack() as stack:
            path = stack.enter_context(plainly_named(folder))
            options = ocp.CheckpointManagerOptions(max_to_keep=keep)
            self._manager = opened(
                run, lambda: ocp.CheckpointManager(path, options=options)
            )
            stack.callback(self._manager.close)
            self._open = stack.pop_all()
        self._hidden = contextlib.ExitStack()
        self._hidden.enter_context(without_late_errors())
        self._has_failed = False  # A read, whose other errors may still come.

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        if hosts.has_failed():  # A save would wait for processes that end.
            return
        if kind is None:
            self._open.close()
            if not self._has_failed:
                self._hidden.close()
        elif (self._run / "config.json").is_file():
            self._close_after_error()
        else:  # A save into a folder that is gone may never end.
            thread = threading.Thread(target=self._close_after_error, daemon=True)
            thread.start()
            thread.join(_SECONDS)

    def _close_after_error(self) -> None:
        with contextlib.suppress(Exception):  # The first error counts.
            self._open.close()

    @property
    def latest(self) -> int | None:
        """The step of the last checkpoint; None without one."""
        return self._manager.latest_step()

    def save(self, step: int, state: TrainState, meta: Mapping[str, Any]) -> None:
        """Starts a save; the state may be donated, and `meta` may change, meanwhile.

        Args:
          step: number of completed steps.
          state: the state after them.
          meta: what else the run needs to resume, as JSON.
        """
        items = {k: ocp.args.StandardSave(v) for k, v in _items(state).items()}
        # Orbax writes it later, in another thread.
        marked = ocp.args.JsonSave(copy.deepcopy({"format": _FORMAT, **meta}))
        args = ocp.args.Composite(**items, meta=marked)
        self._manager.save(step, args=args)

    def wait(self) -> None:
        """Waits until all saves are on disk."""
        self._manager.wait_until_finished()

    def restore(self, shapes: TrainState) -> tuple[TrainState, dict[str, Any]]:
        """Restores the last checkpoint, or, where it is damaged, the last whole one.

        Args:
          shapes: the state as `jax.ShapeDtypeStruct`, with shardings.

        Returns:
          The state, without a teacher, and the `meta` that was saved with it.

        Raises:
          WeightsError: if there is no checkpoint, or none can be read.
        """
        steps, self._has_failed = self._manager.all_steps(), True
        found = last_whole(self._run, steps, lambda step: self._agreed(step, shapes))
        self._has_failed = bool(found.damaged)
        self.damaged = {**self.damaged, **found.damaged}
        return found.tree

    def set_aside(self) -> Path:
        """Moves the damaged checkpoints out of the way of new ones, and keeps them.

        Returns:
          The folder that they are in now.
        """
        for step in self.damaged if hosts.is_leader() else ():
            self._move_aside(step)
        hosts.gather("")  # No process saves before that.
        self._manager.reload()
        return self._run / _DAMAGED

    def _set_aside_unopenable(self) -> dict[int, str]:
        """What was wrong with the checkpoints that it moved, by step."""
        damaged = unopenable(self._run) if hosts.is_leader() else {}
        for step in damaged:
            self._move_aside(step)
        # No process opens the folder before that.
        found = json.loads(hosts.gather(json.dumps(damaged))[0])
        return {int(step): reason for step, reason in found.items()}

    def _move_aside(self, step: int) -> None:
        old = self._run / "checkpoints" / str(step)
        if old.exists():  # Else it was moved when the folder was opened.
            places = itertools.count(2)
            new = self._run / _DAMAGED / str(step)
            new.parent.mkdir(exist_ok=True)
            while new.exists():
                new = new.with_name(f"{step}-{next(places)}")
            old.rename(new)

    def _agreed(self, step: int, shapes: TrainState) -> tuple[TrainState, Any]:
        """Restores a checkpoint that every process can read; raises in all, if not."""
        restored: Any = None
        own: Exception | None = None
        try:
            restored = self._restore(step, shapes)
        except UNREADABLE as error:
            own = error
        reasons = hosts.gather("" if own is None else str(own) or type(own).__name__)
        if own is not None:
            raise own
        if reason := next(filter(None, reasons), ""):
            raise ValueError(f"another process cannot read it: {reason}")
        return restored

    def _restore(self, step: int, shapes: TrainState) -> tuple[TrainState, Any]:
        args = ocp.args.Composite(meta=ocp.args.JsonRestore())
        meta = self._manager.restore(step, args=args)["meta"]
        _check_meta(meta, step)
        items = _items(shapes)
        is_old = meta.pop("format", None) is None and "objective" in items
        if is_old:
            items["rest"] = _renamed(items["rest"], OBJECTIVE, _OLD_OBJECTIVE)
        args = {k: ocp.args.StandardRestore(v) for k, v in items.items()}
        read = self._manager.restore(step, args=ocp.args.Composite(**args))
        model, rest = dict(read["model"]), read["rest"]
        if is_old:
            rest = _renamed(rest, _OLD_OBJECTIVE, OBJECTIVE)
        if "objective" in read:
            model["params"] = {**model["params"], OBJECTIVE: read["objective"]}
        state = TrainState(
            **model,
            step=rest["step"],
            opt_state=rest["opt_state"],
            method_state=rest.get(_METHOD_STATE),
            ema=read.get("ema"),
        )
        return state, meta


def _check_meta(meta: Any, step: int) -> None:
    """Raises `ValueError` if a checkpoint's `meta` is not what was saved."""
    if not isinstance(meta, dict) or not {"format", "step"} & meta.keys():
        raise ValueError("its meta is not a run's")
    if meta.get("step", step) != step:
        raise ValueError(f"its meta is of step {meta['step']}"[:80])
    for name in ("meter", "unreadable"):
        if not isinstance(meta.get(name, {}), dict):
            raise ValueError(f"its meta has no {name}")


def _renamed(tree: Any, old: str, new: str) -> Any:
    """The tree with one key of its dictionaries renamed."""

    def has_key(node):
        return isinstance(node, dict) and old in node

    def rename(node):
        if not has_key(node):
            return node
        return {new if key == old else key: value for key, value in node.items()}

    return jax.tree.map(rename, tree, is_leaf=has_key)


def _items(state: TrainState) -> dict[str, Any]:
    rest = {"step": state.step, "opt_state": state.opt_state}
    if state.method_state is not None:
        rest[_METHOD_STATE] = state.method_state
    items = {"model": state.variables, "rest": rest}
    if OBJECTIVE in state.params:
        items["objective"] = state.params[OBJECTIVE]
    return items if state.ema is None else {**items, "ema": state.ema}
