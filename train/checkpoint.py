"""The checkpoints of a run: `RUN/checkpoints/STEP`, written by Orbax.

A checkpoint appears whole or not at all: a run that is killed while it saves goes on
from the one before.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orbax.checkpoint as ocp

from train.step import TrainState

__all__ = ["KEPT", "Checkpoints"]

# How many checkpoints a run keeps, the last ones.
KEPT = 2


class Checkpoints:
    """The last checkpoints of a run.

    Each holds three items: `model`, the variables, which `cnn_flax.load_pretrained`
    reads; `rest`, what else the state has; and `meta`, JSON. Where the state has them,
    running means of the variables are one more, `ema`, of the form of `model`, and
    the objective's own parameters another, `objective`.
    """

    def __init__(self, run: Path, *, keep: int = KEPT) -> None:
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
        """Number of steps that the last checkpoint has behind it; None without one."""
        return self._manager.latest_step()

    def save(self, step: int, state: TrainState, meta: Mapping[str, Any]) -> None:
        """Begins to save; the state may be donated to the next step meanwhile.

        Args:
          step: number of steps done.
          state: the state after them.
          meta: whatever else the run needs to go on, as JSON holds it.
        """
        items = {k: ocp.args.StandardSave(v) for k, v in _items(state).items()}
        args = ocp.args.Composite(**items, meta=ocp.args.JsonSave(meta))
        self._manager.save(step, args=args)

    def wait(self) -> None:
        """Returns when what was saved is on disk."""
        self._manager.wait_until_finished()

    def restore(self, shapes: TrainState) -> tuple[TrainState, dict[str, Any]]:
        """Reads the last checkpoint.

        Args:
          shapes: a state of `jax.ShapeDtypeStruct`, with shardings.

        Returns:
          The state, without a teacher, and the meta that were saved.
        """
        items = {k: ocp.args.StandardRestore(v) for k, v in _items(shapes).items()}
        args = ocp.args.Composite(**items, meta=ocp.args.JsonRestore())
        read = self._manager.restore(self.latest, args=args)
        model = dict(read["model"])
        if "objective" in read:
            model["params"] = {**model["params"], "objective": read["objective"]}
        state = TrainState(**model, **read["rest"], ema=read.get("ema"))
        return state, read["meta"]

    def restore_ema(self, variables: Any) -> Any:
        """Reads the running means of the last checkpoint, which has them.

        Args:
          variables: the model's, arrays of the same form.
        """
        args = ocp.args.Composite(ema=ocp.args.StandardRestore(variables))
        return self._manager.restore(self.latest, args=args)["ema"]

    def restore_objective(self, own: Any) -> Any:
        """Reads the objective's own parameters, of the last checkpoint, which has them.

        Args:
          own: arrays or shapes of the same form.
        """
        args = ocp.args.Composite(objective=ocp.args.StandardRestore(own))
        return self._manager.restore(self.latest, args=args)["objective"]


def _items(state: TrainState) -> dict[str, Any]:
    rest = {"step": state.step, "opt_state": state.opt_state}
    if state.memory is not None:
        rest["memory"] = state.memory
    items = {"model": state.variables, "rest": rest}
    if "objective" in state.params:
        items["objective"] = state.params["objective"]
    return items if state.ema is None else {**items, "ema": state.ema}
