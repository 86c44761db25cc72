"""Numbers of channels of networks that a multiplier makes wider or narrower."""

__all__ = ["round_channels"]


def round_channels(channels: float) -> int:
    """The nearest multiple of 8 that is not more than 10 % below `channels`.

    The rule of the MobileNets' code, which EfficientNet follows: torchvision's
    `_make_divisible`, timm's `make_divisible`. The least is 8.
    """
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded if rounded >= 0.9 * channels else rounded + 8
