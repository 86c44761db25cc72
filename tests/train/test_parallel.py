import os
import subprocess
import sys
import textwrap

import jax
import jax.numpy as jnp
import pytest

from train.parallel import Placement, compile_step


def test_a_step_is_compiled_for_one_shape_and_no_other():
    placement = Placement()
    arguments = placement.shapes((jnp.zeros(4),), placement.split)
    step = compile_step(lambda x: 2 * x, arguments, out=placement.split)
    assert (step(jnp.ones(4)) == 2).all()
    with pytest.raises(TypeError, match="differ from the types"):
        step(jnp.ones(5))


def test_donated_memory_is_taken():
    placement = Placement()
    arguments = placement.shapes((jnp.zeros(4),), placement.whole)
    step = compile_step(lambda x: x + 1, arguments, out=placement.whole, donate=(0,))
    x = jax.device_put(jnp.zeros(4), placement.whole)
    assert step(x)[0] == 1
    assert x.is_deleted()


def test_four_devices_share_a_batch_and_give_the_steps_of_one():
    code = """
        import jax, numpy as np, chex
        import cnn_flax
        from functools import partial
        from train.config import Augment, Optimization
        from train.errors import UserError
        from train.inputs import train_inputs
        from train.objectives import supervised
        from train.optimizer import make_optimizer
        from train.parallel import Placement, compile_step
        from train.step import create_state, make_train_step

        fields = {"stage_sizes": (1,), "width": 4, "small_inputs": True}
        net = cnn_flax.create_model("resnet18", **fields, drop_path_rate=0.5)
        tx = make_optimizer(Optimization(), 0.1)
        step = make_train_step(
            supervised(net), tx, train_inputs(Augment(0.5, 2), mean=(0.5,), std=(0.25,))
        )
        rng = np.random.default_rng(0)
        batch = {
            "image": rng.integers(0, 256, (8, 8, 8, 1), np.uint8),
            "label": rng.integers(0, 10, 8).astype(np.int32),
            "index": np.arange(8, dtype=np.int32),
        }
        results = []
        for count in (1, 4):
            placement = Placement(jax.devices()[:count])
            state = create_state(net, tx, (8, 8, 1), jax.random.key(0))
            state = jax.device_put(state, placement.whole)
            key = jax.device_put(jax.random.key(1), placement.whole)
            on_devices = jax.device_put(batch, placement.split)
            compiled = compile_step(
                step,
                (
                    placement.shapes(state, placement.whole),
                    placement.shapes(on_devices, placement.split),
                    placement.shapes(key, placement.whole),
                ),
                out=placement.whole,
                donate=(0,),
            )
            assert "all-gather" not in compiled.as_text()
            for _ in range(2):
                state, metrics = compiled(state, on_devices, key)
            results.append(jax.device_get((state, metrics)))
        # Two orders of summation, and two steps to drift apart in.
        chex.assert_trees_all_close(*results, rtol=1e-3, atol=1e-4)
        try:
            placement.check(6)
        except UserError as error:
            print(error)
    """
    environment = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=4",
    }
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "--batch-size must be a multiple of the 4 devices, got 6.\n"
