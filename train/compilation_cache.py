"""JAX's persistent compilation cache, switched on for the programs."""

import os
from pathlib import Path

__all__ = ["use_compilation_cache"]


def use_compilation_cache() -> None:
    """Caches compiled programs on disk.

    The folder is `JAX_COMPILATION_CACHE_DIR`, by default `~/.cache/cnn_flax/xla`.
    """
    import jax

    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        home = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
        jax.config.update("jax_compilation_cache_dir", str(home / "cnn_flax" / "xla"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
