"""Evaluations that no model made."""

import numpy as np

from train.run.evaluation import Evaluation


def made_up_evaluation(classes, wrong_every, confidence):
    """40 images; image i has loss i, and some are taken for the class after theirs."""
    label = np.arange(40) % classes
    wrong = np.arange(40) % wrong_every == 0
    return Evaluation(
        index=np.arange(40),
        label=label,
        prediction=(label + wrong) % classes,
        confidence=confidence,
        rank=wrong.astype(int),
        loss=np.arange(40.0),
    )
