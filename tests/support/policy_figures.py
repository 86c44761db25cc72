"""torchvision's policies: its operations on one image, and its strengths."""

import numpy as np

from tests.support import figures

# torchvision 0.29.1's `transforms.autoaugment._apply_op` on one image of bytes, by
# space, operation, magnitude, sign and interpolation; and the spaces' strengths.
PATH = figures.REFERENCE / "ops" / "policy_operations.npz"


NAMES = {"translatex": "translate_x", "translatey": "translate_y"} | {
    "shearx": "shear_x",
    "sheary": "shear_y",
}


def our_name(theirs):
    return NAMES.get(theirs.lower(), theirs.lower())


def our_strength(name, theirs):
    """Ours are in whole pixels, with thresholds in [0, 1]."""
    if name.startswith("translate"):
        return np.trunc(theirs)
    return theirs / np.float32(255) if name == "solarize" else theirs


def strengths_of(space):
    """torchvision's strengths by our names, for images of 14 x 17 pixels."""
    with np.load(PATH) as stored:
        found = {
            k.split("/")[2]: stored[k] for k in stored.files if k.startswith(space)
        }
    return {our_name(k): our_strength(our_name(k), v) for k, v in found.items()}
