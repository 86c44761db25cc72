"""The value of a loss of unlabelled images."""

from typing import Any


def evaluated(unlabelled_loss: Any) -> Any:
    """The loss, with its value for the last view in place of the function of logits."""

    def evaluate(views, batch, state=None):
        loss_of, state, metrics = unlabelled_loss(views, batch, state)
        return loss_of(views[-1]), state, metrics

    return evaluate
