"""A run's checkpoints, `RUN/checkpoints/STEP`, written by Orbax.

A checkpoint is complete or does not exist: a run that is killed during a save resumes
from the one before.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orbax.checkpoint as ocp

from train.learn.step import TrainState

__all__ = ["KEEP", "Checkpoints"]

# How many checkpoints a run keeps, the last ones.
KEEP = 2


class Checkpoints:
    """The last checkpoints of a run.

    Each holds three items: `model`, the variables, which `cnn_flax.load_pretrained`
    reads; `rest`, the remaining state; and `meta`, JSON. If the state has a moving
    average of the variables, there is an item `ema` of the same form as `model`, and if
    the objective has parameters of its own, an item `objective`.
    """

    def __init__(self, run: Path, *, keep: int = KEEP) -> None:
        """Opens the run's folder of checkpoints.

        Args:
          run: the run's folder.
          keep: number of checkpoints to keep, the last ones.
        """
        self._manager = ocp.CheckpointManager(
            (run / "checkpoints").absolute(),
            options=ocp.CheckpointManagerOptions(max_to_keep=keep),
        )

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *error: object) -> None:
        self._manager.close()

    @property
    def latest(self) -> int | None:
        """The step of the last checkpoint; None without one."""
        return self._manager.latest_step()

    def save(self, step: int, state: TrainState, meta: Mapping[str, Any]) -> None:
        """Starts a save; meanwhile the state may be donated to the next step.

        Args:
          step: number of completed steps.
          state: the state after them.
          meta: what else the run needs to resume, as JSON holds it.
        """
        items = {k: ocp.args.StandardSave(v) for k, v in _items(state).items()}
        args = ocp.args.Composite(**items, meta=ocp.args.JsonSave(meta))
        self._manager.save(step, args=args)

    def wait(self) -> None:
        """Waits until all saves are on disk."""
        self._manager.wait_until_finished()

    def restore(self, shapes: TrainState) -> tuple[TrainState, dict[str, Any]]:
        """Restores the last checkpoint.

        Args:
          shapes: a state of `jax.ShapeDtypeStruct`, with shardings.

        Returns:
          The state, without a teacher, and the meta that was saved with it.
        """
        items = {k: ocp.args.StandardRestore(v) for k, v in _items(shapes).items()}
        args = ocp.args.Composite(**items, meta=ocp.args.JsonRestore())
        read = self._manager.restore(self.latest, args=args)
        model, rest = dict(read["model"]), read["rest"]
        if "objective" in read:
            model["params"] = {**model["params"], "objective": read["objective"]}
        state = TrainState(
            **model,
            step=rest["step"],
            opt_state=rest["opt_state"],
            method_state=rest.get("memory"),
            ema=read.get("ema"),
        )
        return state, read["meta"]

    def restore_ema(self, variables: Any) -> Any:
        """Restores the moving average of the last checkpoint, which must have one.

        Args:
          variables: the model's, arrays of the same form.
        """
        args = ocp.args.Composite(ema=ocp.args.StandardRestore(variables))
        return self._manager.restore(self.latest, args=args)["ema"]

    def restore_objective(self, params: Any) -> Any:
        """Restores the objective's own parameters, which the last checkpoint must have.

        Args:
          params: arrays or shapes of the same form.
        """
        args = ocp.args.Composite(objective=ocp.args.StandardRestore(params))
        return self._manager.restore(self.latest, args=args)["objective"]


def _items(state: TrainState) -> dict[str, Any]:
    rest = {"step": state.step, "opt_state": state.opt_state}
    if state.method_state is not None:
        rest["memory"] = (
            state.method_state
        )  # The name that checkpoints have had so far.
    items = {"model": state.variables, "rest": rest}
    if "objective" in state.params:
        items["objective"] = state.params["objective"]
    return items if state.ema is None else {**items, "ema": state.ema}
