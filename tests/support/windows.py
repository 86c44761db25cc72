"""What holds for random windows, both on the device and on the host."""

import numpy as np
from scipy import stats

# Size of the image, range of proportions, and the central window that is the fallback
# where no window of the full area fits: top, left, height, width.
CENTRED = [
    ((30, 30), (3.0, 4.0), (10, 0, 10, 30)),  # Too wide, so less high.
    ((30, 30), (0.25, 0.5), (0, 7, 30, 15)),  # Too high, so less wide.
    ((30, 30), (1.0, 1.0), (0, 0, 30, 30)),
]


def check_windows(boxes):
    """Checks windows of 0.2 to 0.4 of the area of 200 x 200 px, 0.5 to 2 wide.

    `boxes(height, width, scale=, ratio=)` gives top, left, height and width, `[4, n]`.
    """
    top, left, height, width = boxes(200, 200, scale=(0.2, 0.4), ratio=(0.5, 2.0))
    area = height * width / 200**2
    assert stats.kstest(area, "uniform", (0.2, 0.2)).pvalue > 1e-3
    log_ratio = np.log2(width / height)
    assert stats.kstest(log_ratio, "uniform", (-1, 2)).pvalue > 1e-3
    for start, side in ((top, height), (left, width)):
        assert start.min() >= 0 and (start + side).max() <= 200
        # Anywhere inside the image.
        place = (start + 0.5) / (200 - side + 1)
        assert stats.kstest(place, "uniform").pvalue > 1e-3
