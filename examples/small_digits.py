"""What the training examples share: scikit-learn's digits, and a small net."""

import numpy as np
from sklearn.datasets import load_digits

__all__ = ["FIELDS", "digits"]

# A ResNet of two blocks for images of 8 x 8 pixels.
FIELDS = {
    "stage_sizes": (1, 1),
    "width": 16,
    "small_inputs": True,
    "num_classes": 10,
}


def digits() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Images float32 `[n, 8, 8, 1]` in [0, 1] and labels int32 `[n]`, each twice.

    The first two arrays are for training; the other two, the last 360 of the 1,797
    digits, for the test.
    """
    pixels, labels = load_digits(return_X_y=True)
    images = (pixels / 16).reshape(-1, 8, 8, 1).astype(np.float32)
    labels = labels.astype(np.int32)
    return images[:-360], labels[:-360], images[-360:], labels[-360:]
