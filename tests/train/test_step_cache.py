import dataclasses
import errno
import hashlib
import os
import pickle
import zlib
from functools import partial
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache as jax_cache

from tests.support.runs import assert_resumes_to_the_same_end
from train import compilation_cache, step_cache
from train.learn.parallel import compile_step, jit_step
from train.run.inference import evaluate_run
from train.run.record import step_identity

IDENTITY = {"step": "sum", "rate": 0.5}
X = jax.ShapeDtypeStruct((3,), jnp.float32)


def use_jaxs_cache(folder):
    """Sets the folder of JAX's own compilation cache; None switches it off."""
    jax.config.update("jax_compilation_cache_dir", folder)
    jax_cache.reset_cache()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The cache of steps, in use, without JAX's own."""
    monkeypatch.setattr(step_cache, "step_folder", lambda: tmp_path / "steps")
    before = jax.config.jax_compilation_cache_dir
    use_jaxs_cache(None)
    yield tmp_path / "steps"
    use_jaxs_cache(before)


@pytest.fixture
def start(folder):
    """Compiles and calls a step; returns whether it was traced."""

    def run(identity=IDENTITY, batch=X, donate=(0,)):
        traced = []

        def step(state, batch):
            traced.append(0)
            return {"sum": state["x"] + 2 * batch}

        arguments = ({"x": batch}, batch)
        compiled = compile_step(
            step, arguments, out=None, donate=donate, identity=identity
        )
        x = jnp.ones(batch.shape, batch.dtype)
        state = {"x": x + 0}
        np.testing.assert_array_equal(compiled(state, x)["sum"], 3 * x)
        assert state["x"].is_deleted() == bool(donate)
        return bool(traced)

    return run


def entry(folder):
    (file,) = folder.iterdir()
    return file


def test_a_step_is_traced_once(start, folder):
    assert start() and not start() and not start()
    assert folder.stat().st_mode & 0o777 == 0o700
    assert entry(folder).stat().st_mode & 0o777 == 0o600
    # Without an identity it is not looked for.
    assert start(identity=None)


def test_a_program_from_jaxs_own_cache_is_not_saved_again(
    start, folder, tmp_path, programs
):
    use_jaxs_cache(str(tmp_path / "xla"))
    assert start()
    entry(folder).unlink()
    jax.clear_caches()
    assert start() and not list(folder.iterdir())
    assert start()  # It runs.


def test_a_step_of_other_things_is_another(start, monkeypatch):
    start()
    assert start(identity={**IDENTITY, "rate": 0.25})
    assert start(batch=jax.ShapeDtypeStruct((4,), jnp.float32))
    assert start(batch=jax.ShapeDtypeStruct((3,), jnp.int32))
    assert start(donate=())
    assert not start()
    with monkeypatch.context() as patch:
        patch.setattr(step_cache, "_sources", lambda: "of another version")
        assert start()
    with monkeypatch.context() as patch:
        patch.setattr(step_cache, "version", lambda name: f"another {name}")
        assert start()
    with monkeypatch.context() as patch:
        patch.setenv("XLA_FLAGS", os.environ.get("XLA_FLAGS", "") + " ")
        assert start()
    with jax.default_matmul_precision("float32"):
        assert start()
    assert not start()


def damage(content):
    """Contents that are whole, but not what they should be."""
    data = zlib.compress(content)
    return hashlib.sha256(data).digest() + data


@pytest.mark.parametrize(
    "change",
    [
        lambda old: old[:-1],
        lambda old: b"",
        lambda old: old[:40] + b"\0" + old[41:],
        lambda old: damage(b"no pickle"),
        lambda old: damage(pickle.dumps(b"another key") + pickle.dumps(())),
    ],
)
def test_a_damaged_entry_is_replaced(start, folder, change):
    start()
    file = entry(folder)
    file.write_bytes(change(file.read_bytes()))
    assert start() and not start()


def test_an_executable_that_cannot_be_loaded_is_compiled_again(start, folder):
    start()
    file = entry(folder)
    content = zlib.decompress(file.read_bytes()[32:])
    key = content[: len(pickle.dumps(pickle.loads(content)))]
    file.write_bytes(damage(key + pickle.dumps((b"", None, None))))
    assert start() and not start()


class Evil:
    def __reduce__(self):
        return os.abort, ()


def test_what_others_can_write_is_not_read(start, folder, monkeypatch):
    start()
    file = entry(folder)
    file.write_bytes(damage(pickle.dumps(Evil())))
    for path, mode in ((folder, 0o750), (folder, 0o707), (file, 0o620)):
        before = path.stat().st_mode
        path.chmod(mode)
        assert start()
        if path == file:  # It is ours again, since it was replaced.
            assert not start()
        else:
            path.chmod(before)
    with monkeypatch.context() as patch:
        patch.setattr(os, "geteuid", lambda: os.getuid() + 1)
        assert start()


def test_a_folder_behind_a_link_is_not_used(start, folder):
    (folder.parent / "elsewhere").mkdir(mode=0o700)
    folder.symlink_to(folder.parent / "elsewhere")
    assert start() and start()
    assert not list((folder.parent / "elsewhere").iterdir())


def test_a_full_disk_is_no_error(start, folder, monkeypatch):
    def full(*arguments, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        assert start()
    assert not list(folder.iterdir())
    assert start() and not start()


def test_the_least_recently_used_entries_are_removed(start, folder, monkeypatch):
    monkeypatch.setattr(step_cache, "_MOST", 2)
    start()
    first = entry(folder)
    start(donate=())
    os.utime(first, (1, 1))
    assert not start()  # It is used, and so the newest.
    start(identity={})
    assert len(list(folder.iterdir())) == 2
    assert not start() and start(donate=())


def test_a_step_of_inference_is_compiled_for_each_shape(folder):
    traced = []

    def step(variables, batch):
        traced.append(batch["x"].shape)
        return variables["w"] * batch["x"]

    for _ in range(2):
        run = jit_step(lambda *arguments: step(*arguments), IDENTITY)
        for count in (2, 2, 3):
            rows = np.ones(count, np.float32)
            out = run({"w": jnp.float32(2)}, {"x": rows})
            np.testing.assert_array_equal(out, 2 * rows)
    assert traced == [(2,), (3,)]


def test_models_of_ones_own_are_not_cached(monkeypatch):
    factory = SimpleNamespace(factory=SimpleNamespace(__module__="my_models"))
    assert step_identity("training", "resnet18", fields={}) == {
        "step": "training",
        "name": "resnet18",
        "fields": {},
    }
    monkeypatch.setattr("train.run.record.registration", lambda name: factory)
    assert step_identity("training", "my_net", fields={}) is None


def test_the_folder_is_next_to_jaxs_own(monkeypatch, tmp_path):
    monkeypatch.setenv("CNN_FLAX_STEP_CACHE", "1")
    monkeypatch.setattr(compilation_cache, "_in_use", True)
    update = partial(jax.config.update, "jax_compilation_cache_dir")
    before = jax.config.jax_compilation_cache_dir
    try:
        update(str(tmp_path))
        assert compilation_cache.step_folder() == tmp_path / "cnn_flax_steps"
        update("gs://bucket/xla")
        assert compilation_cache.step_folder() is None
        update(str(tmp_path))
        monkeypatch.setenv("CNN_FLAX_STEP_CACHE", "0")
        assert compilation_cache.step_folder() is None
    finally:
        update(before)


@pytest.mark.slow
def test_a_resumed_run_and_its_evaluation_trace_no_step_and_give_the_same(
    folder, tiny, quiet, tmp_path, monkeypatch
):
    traced = []
    original = step_cache.cached_step

    def watched(identity, arguments, compiled):
        def noted():
            traced.append(identity["step"])
            return compiled()

        return original(identity, arguments, noted)

    monkeypatch.setattr("train.learn.parallel.cached_step", watched)
    short = dataclasses.replace(tiny, epochs=2, epoch_steps=2)
    whole, _ = assert_resumes_to_the_same_end(short, tmp_path, 3, monkeypatch, quiet)
    assert sorted(traced) == ["evaluation", "training"]
    first, again = (evaluate_run(whole)[0].figures() for _ in range(2))
    assert first == again
    # That of `evaluate` is of the folded net.
    assert sorted(traced) == ["evaluation", "evaluation", "training"]
