"""Switches off the CPU fusion of jaxlib 0.10.2, which computes wrong sums.

That version, the newest for Python 3.11, is wrong for some shapes
(https://github.com/jax-ml/jax/issues/39103) and crashes for others
(https://github.com/jax-ml/jax/issues/39257).
"""

import os
import sys
import warnings

import jaxlib.version

__all__ = ["switch_off_faulty_fusion"]

_FAULTY = "0.10.2"
_FLAG = "--xla_cpu_experimental_ynn_fusion_type"


def switch_off_faulty_fusion() -> None:
    """Adds the flag to `XLA_FLAGS`, unless the variable has it already.

    XLA reads the variable when the first array is made. After that, where arrays are on
    a CPU, a `RuntimeWarning` says what to do. JAX is not imported.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    if jaxlib.version.__version__ != _FAULTY or _FLAG in flags:
        return
    if "jax" not in sys.modules or not _has_arrays():
        os.environ["XLA_FLAGS"] = f"{flags} {_FLAG}=".strip()
    elif sys.modules["jax"].default_backend() == "cpu":
        warnings.warn(
            f"jaxlib {_FAULTY} computes some sums wrongly on a CPU, and it is too late "
            "to switch the faulty fusion off. Import cnn_flax before the first array "
            f"is made, or set XLA_FLAGS={_FLAG}= in the environment, or use another "
            "version of jaxlib.",
            RuntimeWarning,
            stacklevel=3,
        )


def _has_arrays() -> bool:
    """Whether XLA has read the variable."""
    # Private, but of this one version.
    from jax._src import xla_bridge

    return xla_bridge.backends_are_initialized()
