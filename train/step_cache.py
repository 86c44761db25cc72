"""Compiled steps on disk: a repeated start neither traces nor compiles.

JAX's compilation cache saves the compilation alone: its key is the traced program. Here
the key is what a step is made from, so that nothing is traced: its identity (the run's
record or the model), the arguments' shapes and shardings, the sources of this package
and of the library, versions, devices, XLA's flags and JAX's options.

An entry holds machine code, and a pickle of how to call it: reading one runs code, as
reading an entry of JAX's own cache does. Entries are therefore never part of a run's
folder, which may come from someone else, but of the user's own cache, in a folder that
no other user may write or read; otherwise there are none.
"""

import contextlib
import hashlib
import io
import json
import os
import pickle
import platform
import secrets
import stat
import sys
import zlib
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from train.compilation_cache import step_folder

__all__ = ["cached_step"]

# The versions that a traced program depends on, next to our own code.
_PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy", "ml_dtypes")
_MOST = 100  # Entries; the least recently used ones are removed.
_DIGEST = hashlib.sha256().digest_size


def cached_step(
    identity: Mapping[str, Any], arguments: Sequence[Any], compiled: Callable[[], Any]
) -> Any:
    """A compiled step, from the cache if it is there.

    What is damaged, of another version or not ours is ignored, and what cannot be
    saved is not: the step is then compiled.

    Args:
      identity: what the program follows from, in JSON's types, except for what this
        module knows.
      arguments: trees of arrays or of `jax.ShapeDtypeStruct`.
      compiled: traces and compiles the step.

    Returns:
      A `jax.stages.Compiled`.
    """
    import jax

    folder = step_folder()
    if folder is None or jax.process_count() > 1:
        return compiled()
    with _opened(folder) as directory:
        if directory is None:
            return compiled()
        devices = _devices(arguments)
        key = json.dumps(
            [identity, _shapes(arguments), _environment(devices)], sort_keys=True
        ).encode()
        name = hashlib.sha256(key).hexdigest()
        step = _read(directory, name, key, devices)
        if step is None:
            with _hits_of_jax() as hits:
                step = compiled()
            if not hits:
                _write(directory, name, key, step)
        return step


@contextlib.contextmanager
def _hits_of_jax() -> Any:
    """Lists the programs that JAX meanwhile reads from its own compilation cache.

    Saved again, such a program cannot be run on a CPU: "Function .. not found".
    """
    import jax

    hits = []

    def note(event: str, **details: Any) -> None:
        if event == "/jax/compilation_cache/cache_hits":
            hits.append(event)

    jax.monitoring.register_event_listener(note)
    try:
        yield hits
    finally:
        jax.monitoring.unregister_event_listener(note)


# The key.


def _shapes(arguments: Sequence[Any]) -> list[str]:
    """Path, shape, dtype and sharding of each array."""
    import jax

    leaves, tree = jax.tree_util.tree_flatten_with_path(arguments)
    return [str(tree)] + [
        f"{jax.tree_util.keystr(path)} {x.dtype}{list(x.shape)} "
        f"{getattr(x, 'weak_type', False)} {getattr(x, 'sharding', None)}"
        for path, x in leaves
    ]


def _devices(arguments: Sequence[Any]) -> list[Any]:
    """The devices that the arguments are on, in the order of their mesh."""
    import jax

    for leaf in jax.tree.leaves(arguments):
        mesh = getattr(getattr(leaf, "sharding", None), "mesh", None)
        if mesh is not None:
            return list(mesh.devices.flat)
    return jax.devices()[:1]


def _environment(devices: Sequence[Any]) -> list[Any]:
    """What a program depends on besides its identity and its arguments."""
    import jax

    places = ("jax_compilation_cache_dir",)
    options = {k: str(v) for k, v in jax.config.values.items() if k not in places}
    flags = {k: v for k, v in os.environ.items() if k.startswith(("XLA_", "LIBTPU_"))}
    return [
        _sources(),
        [sys.version, *(version(name) for name in _PACKAGES)],
        [platform.machine(), _cpu()],
        [[device.id, device.platform, device.device_kind] for device in devices],
        [device.client.platform_version for device in devices[:1]],
        jax.device_count(),
        options,
        flags,
    ]


@cache
def _sources() -> str:
    """A digest of all modules of this package and of the library."""
    import cnn_flax

    digest = hashlib.sha256()
    for package in (str(cnn_flax.__file__), __file__):
        root = Path(package).parent
        for path in sorted(root.rglob("*.py")):
            digest.update(f"{path.relative_to(root)}\0".encode())
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


@cache
def _cpu() -> list[str]:
    """The CPU's name and instructions: compiled code runs on no CPU with fewer."""
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text("utf-8").partition("\n\n")[0]
        names = ("model name", "flags", "Features")
        return [line for line in lines.splitlines() if line.startswith(names)]
    return [platform.processor()]


# The files.


@contextlib.contextmanager
def _opened(folder: Path) -> Any:
    """The folder, open, if it is this user's alone; None otherwise."""
    directory = None
    with contextlib.suppress(OSError):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        directory = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        if not _is_ours(os.fstat(directory)):
            os.close(directory)
            directory = None
    try:
        yield directory
    finally:
        if directory is not None:
            os.close(directory)


def _is_ours(found: os.stat_result) -> bool:
    """Whether a file is this user's, and no other user may write or read it."""
    return found.st_uid == os.geteuid() and not stat.S_IMODE(found.st_mode) & 0o077


def _read(directory: int, name: str, key: bytes, devices: Sequence[Any]) -> Any:
    """The step of a key; None if there is none that can be used."""
    from jax.experimental.serialize_executable import deserialize_and_load

    try:
        file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=directory)
        with open(file, "rb") as opened:
            found = os.fstat(file)
            if not _is_ours(found) or not stat.S_ISREG(found.st_mode):
                return None
            digest, data = opened.read(_DIGEST), opened.read()
            if hashlib.sha256(data).digest() != digest:
                return None
            os.utime(file)
        saved = io.BytesIO(zlib.decompress(data))
        if pickle.load(saved) != key:
            return None
        return deserialize_and_load(
            *pickle.load(saved),
            backend=devices[0].client,
            execution_devices=devices,
        )
    except Exception:  # Whatever is wrong with it, the step can be compiled.
        return None


def _write(directory: int, name: str, key: bytes, step: Any) -> None:
    """Saves a step, if it can be saved."""
    from jax.experimental.serialize_executable import serialize

    new = f".{name}.{secrets.token_hex(4)}"
    try:
        data = zlib.compress(pickle.dumps(key) + pickle.dumps(serialize(step)), 1)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        file = os.open(new, flags, 0o600, dir_fd=directory)
        try:
            with open(file, "wb") as opened:
                opened.write(hashlib.sha256(data).digest() + data)
            os.replace(new, name, src_dir_fd=directory, dst_dir_fd=directory)
        except BaseException:
            os.unlink(new, dir_fd=directory)
            raise
        _remove_oldest(directory)
    except Exception:  # Such as a full disk, or a program that calls the host.
        return


def _remove_oldest(directory: int) -> None:
    """Removes the least recently used entries over the limit."""
    with os.scandir(directory) as entries:
        by_age = sorted(entries, key=lambda entry: entry.stat().st_mtime)
    for entry in by_age[:-_MOST]:
        with contextlib.suppress(OSError):
            os.unlink(entry.name, dir_fd=directory)
