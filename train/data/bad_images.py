"""Unreadable images: reported once each, counted, and limited to a share of the set."""

import threading
from collections.abc import Callable, Mapping

from rich.console import Console

from train.console import say
from train.data.decode import DecodeError
from train.errors import UserError

__all__ = ["BadImages", "BadImagesError"]


class BadImagesError(UserError):
    """More images of a set are unreadable than allowed."""


def _say(message: str) -> None:
    say(Console(stderr=True), message)


class BadImages:
    """The images of one set that have turned out to be unreadable.

    Args:
      total: number of images in the set.
      max_share: share of the set that may be unreadable, in `[0, 1]`.
      say: called with one line per unreadable image, the first time it is read.
      found: initial value of the property `found`, for a resumed run.
    """

    def __init__(
        self,
        total: int,
        *,
        max_share: float = 0.01,
        say: Callable[[str], None] = _say,
        found: Mapping[str, str] | None = None,
    ) -> None:
        if not 0 <= max_share <= 1:
            raise UserError(f"the share of bad images {max_share} must be in [0, 1]")
        self._total = total
        self._max_share = max_share
        self._say = say
        self._found = dict(found or {})
        # Images are read in several threads.
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._found)

    @property
    def found(self) -> dict[str, str]:
        """What is wrong with each image, by its name, in the order of discovery."""
        with self._lock:
            return dict(self._found)

    def add(self, error: DecodeError) -> None:
        """Records an unreadable image.

        Raises:
          BadImagesError: if there are now more than allowed; the message lists them.
        """
        with self._lock:
            new = error.name not in self._found
            self._found[error.name] = error.reason
            too_many = len(self._found) > self._max_share * self._total
        if new:
            self._say(f"left out: {error}")
        if too_many:
            raise BadImagesError(self._list())

    def _list(self) -> str:
        found = self.found
        lines = "".join(f"\n  {name}: {reason}" for name, reason in found.items())
        return (
            f"{len(found)} of {self._total} images cannot be read, more than the "
            f"allowed share of {self._max_share:g}:{lines}"
        )
