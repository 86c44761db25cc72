"""Images that cannot be read: named once, counted, and only so many allowed."""

import sys
import threading
from collections.abc import Callable, Mapping

from train.data.decode import DecodeError
from train.errors import UserError

__all__ = ["BadImages", "BadImagesError"]


class BadImagesError(UserError):
    """More of a set's images cannot be read than was allowed."""


def _say(message: str) -> None:
    print(message, file=sys.stderr)


class BadImages:
    """The images of one set that could not be read so far.

    Args:
      total: number of images in the set.
      max_share: share of the set that may be unreadable, in `[0, 1]`.
      say: called with a line for each such image, the first time that it is met.
      known: images already met, as `found` gave them, for a run that goes on.
    """

    def __init__(
        self,
        total: int,
        *,
        max_share: float = 0.01,
        say: Callable[[str], None] = _say,
        known: Mapping[str, str] | None = None,
    ) -> None:
        if not 0 <= max_share <= 1:
            raise UserError(f"the share of bad images {max_share} must be in [0, 1]")
        self._total = total
        self._max_share = max_share
        self._say = say
        self._found = dict(known or {})
        # Images are read on threads.
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._found)

    @property
    def found(self) -> dict[str, str]:
        """From the name of each image to what is wrong with it, in order of meeting."""
        with self._lock:
            return dict(self._found)

    def add(self, error: DecodeError) -> None:
        """Notes one more image.

        Raises:
          BadImagesError: with this one there are more than allowed; the message lists
            them.
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
            f"{len(found)} of {self._total} images cannot be read, more than the share "
            f"of {self._max_share:g} that is allowed:{lines}"
        )
