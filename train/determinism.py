"""`--deterministic`: run-to-run determinism on a GPU, by a flag of XLA's.

On a CPU two runs of one program are bit-equal without it. On a GPU, XLA may add in the
order in which threads come (scatters, some of cuDNN's gradients), and measures which
kernels are fastest, which may end otherwise the next time.
"""

import os
import re

from train.errors import UserError

__all__ = ["cost_of_determinism", "require_determinism"]

# "Guarantees run-to-run determinism on GPU", in jaxlib 0.10 to 0.12. It includes
# --xla_gpu_exclude_nondeterministic_ops, and switches off the choice by measuring:
# https://github.com/openxla/xla/pull/12520
_FLAG = "--xla_gpu_deterministic_ops"
_COST = (
    "--deterministic: XLA excludes operations whose sums have no fixed order, and "
    "takes kernels without measuring which is fastest, so that steps are slower; most "
    "of all those with scatters, such as the gradient of a deformable convolution "
    "(https://github.com/jax-ml/jax/issues/17844)."
)
_NOTHING = {
    "cpu": "--deterministic changes nothing on a CPU: equal runs are bit-equal there.",
    "": "--deterministic changes nothing here: XLA's flag for it is a GPU's.",
}


def require_determinism(wanted: bool) -> None:
    """Adds XLA's flag to `XLA_FLAGS`, unless the variable has it already.

    XLA reads the variable when the first array is made.

    Args:
      wanted: whether the run is to be deterministic; if not, nothing is changed.

    Raises:
      UserError: if the variable has the flag switched off, or if arrays are on a GPU
        already.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    if not wanted:
        return
    if found := re.search(rf"{_FLAG}(=\S*)?(?!\S)", flags):
        if (found[1] or "=true").lower() not in ("=true", "=1"):
            raise UserError(
                f"--deterministic needs {_FLAG}=true, and the environment's XLA_FLAGS "
                f"has {found[0]}: leave out one of them."
            )
        return
    import jax

    # There is no public way to ask without starting them.
    from jax._src import xla_bridge

    if not xla_bridge.backends_are_initialized():
        os.environ["XLA_FLAGS"] = f"{flags} {_FLAG}=true".strip()
    elif jax.default_backend() == "gpu":
        raise UserError(
            f"--deterministic needs XLA_FLAGS={_FLAG}=true in the environment before "
            "the first array is made, and there are arrays already: set it there, and "
            "start again."
        )


def cost_of_determinism() -> str:
    """What `--deterministic` costs on this process's devices, in a sentence."""
    import jax

    kind = jax.default_backend()
    return _COST if kind == "gpu" else _NOTHING.get(kind, _NOTHING[""])
