"""Regular files: opening a FIFO, a socket or a device may never return."""

import errno
import os
import stat

__all__ = ["check_regular"]


def check_regular(path: str | os.PathLike[str]) -> None:
    """Checks that a path may be opened to be read, before it is.

    Raises:
      OSError: if it is a FIFO, a socket or a device, or does not exist. Folders are
        left to `open`.
    """
    mode = os.stat(path).st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise OSError(errno.EINVAL, "it is no regular file", os.fspath(path))
