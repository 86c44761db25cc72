"""The training programs: `python -m train`, and the same from Python.

A run is a `Config`, and a sweep is a loop:

    import train

    config = train.recipes.load("digits_resnet").config
    for rate in (0.03, 0.1, 0.3):
        changed = train.replace(config, learning_rate=rate)
        result = train.fit(changed, f"runs/rate_{rate}")
        print(rate, result.figures["accuracy"])

`advise` recommends how to start from weights, `fit` trains, `evaluate`, `calibrate`,
`predict` and `pseudo_label` use a run, and `self_train` runs a Noisy Student. Each
returns a `Result`: its figures, the paths of what was written, and plots, which a
notebook shows. What cannot be done raises `UserError`, whose message names fields as
the command line does: `learning_rate` is `--learning-rate`.

Importing this package imports nothing else; each name is loaded when it is first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from train import recipes
    from train.api.advising import AdviseResult, advise
    from train.api.calibration import CalibrateResult, calibrate
    from train.api.evaluation import EvaluateResult, evaluate
    from train.api.labelling import PseudoLabelResult, pseudo_label
    from train.api.prediction import PredictResult, predict
    from train.api.result import Result
    from train.api.self_training import SelfTrainResult, self_train
    from train.api.training import FitResult, fit
    from train.compilation_cache import use_compilation_cache
    from train.config import Config
    from train.config_file import replace
    from train.errors import UserError
    from train.noisy_student import NoisyStudent, Student

__all__ = [
    "AdviseResult",
    "CalibrateResult",
    "Config",
    "EvaluateResult",
    "FitResult",
    "NoisyStudent",
    "PredictResult",
    "PseudoLabelResult",
    "Result",
    "SelfTrainResult",
    "Student",
    "UserError",
    "advise",
    "calibrate",
    "evaluate",
    "fit",
    "predict",
    "pseudo_label",
    "recipes",
    "replace",
    "self_train",
    "use_compilation_cache",
]

_HOMES = {
    "AdviseResult": "api.advising",
    "CalibrateResult": "api.calibration",
    "Config": "config",
    "EvaluateResult": "api.evaluation",
    "FitResult": "api.training",
    "NoisyStudent": "noisy_student",
    "PredictResult": "api.prediction",
    "PseudoLabelResult": "api.labelling",
    "Result": "api.result",
    "SelfTrainResult": "api.self_training",
    "Student": "noisy_student",
    "UserError": "errors",
    "advise": "api.advising",
    "calibrate": "api.calibration",
    "evaluate": "api.evaluation",
    "fit": "api.training",
    "predict": "api.prediction",
    "pseudo_label": "api.labelling",
    "replace": "config_file",
    "self_train": "api.self_training",
    "use_compilation_cache": "compilation_cache",
}


def __getattr__(name: str) -> Any:
    """Loads a public name when it is first used."""
    if name == "recipes":
        return importlib.import_module("train.recipes")
    if name not in _HOMES:
        raise AttributeError(f"module 'train' has no attribute {name!r}")
    return getattr(importlib.import_module(f"train.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
