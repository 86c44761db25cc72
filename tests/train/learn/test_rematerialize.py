import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from train.config import Config, Input, Network, Optimization, Parallelism
from train.data.stand_in import stand_in
from train.learn.objectives import stage_ends
from train.learn.rematerialize import rematerialize_stages
from train.run.program import build, compile_train_step


def two_stages(variables, inputs):
    """The second stage also reads a random mask, integers, of the first."""
    (first, second), key = variables
    mask = jax.random.bernoulli(key, 0.5, inputs.shape).astype(jnp.int32)
    hidden = jnp.tanh(inputs @ first) * mask
    output = jnp.tanh(hidden @ second) * mask
    return {"head": jnp.sum(output**2), "hidden": hidden}, [hidden, output]


def test_gradients_are_those_without_it(float64):
    x = jax.random.normal(jax.random.key(0), (3, 4), jnp.float64)
    params = (jax.random.normal(jax.random.key(1), (2, 4, 4), jnp.float64), x.mean())
    key = jax.random.key(2)

    def loss(function):
        def of(params, x):
            result = function((tuple(params[0]), key), x * params[1])
            return result["head"] + jnp.sum(result["hidden"])

        return jax.value_and_grad(of, (0, 1))(params, x)

    plain = loss(lambda variables, inputs: two_stages(variables, inputs)[0])
    again = loss(rematerialize_stages(two_stages))
    chex.assert_trees_all_close(again, plain, rtol=1e-12)


def test_nothing_inside_a_stage_is_saved():
    def function(variables, inputs):
        output = jnp.tanh(inputs @ variables) @ variables.T
        return output, [output]

    def saved(function):
        _, backward = jax.vjp(function, jnp.ones((4, 64)), jnp.ones((3, 4)))
        return {array.shape for array in jax.tree.leaves(backward)}

    assert (3, 64) in saved(lambda *arguments: function(*arguments)[0])
    assert saved(rematerialize_stages(function)) == {(4, 64), (3, 4)}


def test_without_stages_everything_is_saved():
    def function(variables, inputs):
        return two_stages(variables, inputs)[0], []

    x, ones = jnp.ones((3, 4)), jnp.ones((4, 4))
    arguments = ((ones, ones), jax.random.key(0)), x
    chex.assert_trees_all_equal(
        rematerialize_stages(function)(*arguments), two_stages(*arguments)[0]
    )


@pytest.mark.parametrize(
    ("sown", "ends"),
    [
        (
            ["stem", "conv1_1", "stage1", "aux1_logits", "pre_logits"],
            ["stem", "stage1"],
        ),
        (["conv1", "pool1", "pre_logits"], ["conv1", "pool1"]),
    ],
)
def test_a_model_without_stages_is_cut_at_all_that_it_sows(sown, ends):
    assert stage_ends(sown) == ends


CONFIG = Config(
    input=Input("digits", image_size=16, batch_size=16, mean=(0.3,), std=(0.4,)),
    network=Network(
        "resnet18",
        {
            "stage_sizes": (1, 1),
            "width": 8,
            "small_inputs": True,
            "drop_path_rate": 0.5,
        },
        dtype="float64",
    ),
    optimization=Optimization(label_smoothing=0.1),
)
STAGES = dataclasses.replace(CONFIG, parallelism=Parallelism(remat="stage"))


@pytest.mark.slow
def test_a_training_step_has_the_same_numbers_and_takes_less_memory(optimized, float64):
    images = stand_in(CONFIG, 16), stand_in(CONFIG, 16)
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 16, 1), np.uint8)
    batch = {
        "image": pixels,
        "label": np.arange(16, dtype=np.int32) % 10,
        "index": np.arange(16, dtype=np.int32),
    }
    states, temporaries = [], []
    for config in (CONFIG, STAGES):
        program = build(config, images=images)
        step = compile_train_step(program)
        memory = step.memory_analysis()  # pyright: ignore
        temporaries.append(memory.temp_size_in_bytes)
        states.append(step(program.init(), batch, program.key))
    chex.assert_trees_all_close(*states, rtol=1e-9, atol=1e-12)
    assert temporaries[1] < 0.7 * temporaries[0]
