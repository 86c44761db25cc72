"""Temperature scaling: a number that divides the logits of a calibrated run.

Guo et al. 2017, "On calibration of modern neural networks",
https://arxiv.org/abs/1706.04599, section 4.2: it minimizes the loss on a validation
set. The predicted classes do not change.
"""

from pathlib import Path
from typing import Any

import numpy as np

from train.errors import UserError
from train.storage import read_json

__all__ = ["FILE", "fit_temperature", "scaled", "temperature_of"]

FILE = "temperature.json"  # In the run's folder.
_FIELDS = {"temperature": float, "step": int}
_BOUNDS = (1e-2, 1e2)


def fit_temperature(log_probs: np.ndarray, labels: np.ndarray) -> float:
    """The temperature with the lowest loss, in [0.01, 100].

    The loss is convex in the temperature's inverse, so that there is one minimum.

    Args:
      log_probs: log probabilities or logits, float `[n, K]`.
      labels: classes, int `[n]`.
    """
    from scipy.optimize import minimize_scalar

    rows = np.asarray(log_probs, np.float64)

    def loss(log_temperature: float) -> float:
        scaled_rows = scaled(rows, np.exp(log_temperature))
        return -float(np.take_along_axis(scaled_rows, labels[:, None], 1).mean())

    bounds = np.log(_BOUNDS)
    found: Any = minimize_scalar(
        loss, bounds=bounds, method="bounded", options={"xatol": 1e-9}
    )
    return float(np.exp(found.x))


def scaled(log_probs: np.ndarray, temperature: float) -> np.ndarray:
    """Log probabilities `[n, K]` of logits that are divided by a temperature."""
    rows = log_probs / temperature
    rows = rows - rows.max(axis=1, keepdims=True)
    return rows - np.log(np.exp(rows).sum(axis=1, keepdims=True))


def temperature_of(run: Path, step: int) -> float | None:
    """The temperature of a run's checkpoint; None if it was not calibrated.

    Raises:
      UserError: if the file is damaged.
    """
    found = read_json(run / FILE, _FIELDS, whole=False)
    if found is None or found["step"] != step:
        return None
    if not found["temperature"] > 0:
        raise UserError(f"{run / FILE} is damaged: its temperature is not above 0.")
    return float(found["temperature"])
