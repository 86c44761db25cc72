"""A run's checkpoints, `RUN/checkpoints/STEP`, written by Orbax.

Saves are atomic: a run that is killed during a save resumes from the checkpoint before.
"""

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from cnn_flax.weights.runs import plainly_named
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


class Checkpoints:
    """The last checkpoints of a run.

    Each holds three items: `model`, the variables, which `cnn_flax.load_pretrained`
    reads; `rest`, the remaining state; and `meta`, JSON. If the state has a moving
    average of the variables, there is an item `ema` of the same structure as `model`;
    if the objective has its own parameters, an item `objective`.
    """

    def __init__(self, run: Path, *, keep: int = KEEP) -> None:
        """Opens the run's folder of checkpoints.

        Args:
          run: the run's folder.
          keep: number of checkpoints to keep, the last ones.
        """
        folder = run / "checkpoints"
        folder.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as stack:
            path = stack.enter_context(plainly_named(folder))
            options = ocp.CheckpointManagerOptions(max_to_keep=keep)
            self._manager = ocp.CheckpointManager(path, options=options)
            stack.callback(self._manager.close)
            self._open = stack.pop_all()

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *error: object) -> None:
        if not hosts.has_failed():  # Else a save would wait for processes that end.
            self._open.close()

    @property
    def latest(self) -> int | None:
        """The step of the last checkpoint; None without one."""
        return self._manager.latest_step()

    def save(self, step: int, state: TrainState, meta: Mapping[str, Any]) -> None:
        """Starts a save; the state may be donated to the next step meanwhile.

        Args:
          step: number of completed steps.
          state: the state after them.
          meta: what else the run needs to resume, as JSON.
        """
        items = {k: ocp.args.StandardSave(v) for k, v in _items(state).items()}
        marked = ocp.args.JsonSave({"format": _FORMAT, **meta})
        args = ocp.args.Composite(**items, meta=marked)
        self._manager.save(step, args=args)

    def wait(self) -> None:
        """Waits until all saves are on disk."""
        self._manager.wait_until_finished()

    def restore(self, shapes: TrainState) -> tuple[TrainState, dict[str, Any]]:
        """Restores the last checkpoint.

        Args:
          shapes: the state as `jax.ShapeDtypeStruct`, with shardings.

        Returns:
          The state, without a teacher, and the `meta` that was saved with it.
        """
        args = ocp.args.Composite(meta=ocp.args.JsonRestore())
        meta = self._manager.restore(self.latest, args=args)["meta"]
        items = _items(shapes)
        is_old = meta.pop("format", None) is None and "objective" in items
        if is_old:
            items["rest"] = _renamed(items["rest"], OBJECTIVE, _OLD_OBJECTIVE)
        args = {k: ocp.args.StandardRestore(v) for k, v in items.items()}
        read = self._manager.restore(self.latest, args=ocp.args.Composite(**args))
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

    def restore_ema(self, variables: Any) -> Any:
        """Restores the moving average from the last checkpoint, which must have one.

        Args:
          variables: arrays of the same structure, such as the model's variables.
        """
        args = ocp.args.Composite(ema=ocp.args.StandardRestore(variables))
        return self._manager.restore(self.latest, args=args)["ema"]

    def restore_objective(self, params: Any) -> Any:
        """Restores the objective's own parameters from the last checkpoint.

        Args:
          params: arrays or shapes of the same structure.
        """
        args = ocp.args.Composite(objective=ocp.args.StandardRestore(params))
        return self._manager.restore(self.latest, args=args)["objective"]


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
