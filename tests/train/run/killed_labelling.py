"""Labels the digits by a run, and kills itself in a write: RUN OUT NUMBER.

NUMBER is of the write, 0 for none of them.
"""

import os
import signal
import sys
from pathlib import Path

from train.data import open_source
from train.run import labelling

usual, calls = os.fsync, []


def fsync(file):
    calls.append(file)
    if len(calls) == int(sys.argv[3]):
        os.kill(os.getpid(), signal.SIGKILL)
    usual(file)


os.fsync = fsync
labelling._SHARD = 200
labelling.label_images(Path(sys.argv[1]), open_source("digits"), Path(sys.argv[2]))
