"""Caches of compiled programs on disk, switched on for the programs."""

import os
from pathlib import Path

__all__ = ["step_folder", "use_compilation_cache"]

_STEPS = "CNN_FLAX_STEP_CACHE"
_in_use = False


def use_compilation_cache() -> None:
    """Caches compiled programs on disk.

    The folder is `JAX_COMPILATION_CACHE_DIR`, by default `~/.cache/cnn_flax/xla`. In
    its folder `cnn_flax_steps` are whole steps, which are not even traced again;
    `CNN_FLAX_STEP_CACHE=0` in the environment switches these off.
    """
    import jax

    global _in_use
    _in_use = True
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        home = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
        jax.config.update("jax_compilation_cache_dir", str(home / "cnn_flax" / "xla"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def step_folder() -> Path | None:
    """The folder of whole steps; None if they are not cached."""
    import jax

    root = jax.config.jax_compilation_cache_dir
    is_on = _in_use and jax.config.jax_enable_compilation_cache
    if not is_on or not root or "://" in root or os.environ.get(_STEPS) == "0":
        return None
    return Path(root) / "cnn_flax_steps"
