"""No key is used twice, in no recipe's training step."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.support.key_use import uses_of_keys
from train import recipes
from train.config import UnevenClasses
from train.data.stand_in import stand_in
from train.noisy_student.plan import TrainStage, plan
from train.run.program import build, train_step_shapes

KEY = jax.random.key(0)
NUMBERS = jnp.arange(3)


def normal(key):
    return jax.random.normal(key)


def twice(key):
    return normal(key) + normal(key)


def split_and_used(key):
    return normal(key) + normal(jax.random.split(key)[0])


def folded_with_equal_numbers(key):
    first, second = (
        jax.vmap(jax.random.fold_in, (None, 0))(key, NUMBERS) for _ in "ab"
    )
    return jax.vmap(normal)(first) + jax.vmap(jax.random.uniform)(second)


def used_in_a_loop(key):
    return jax.lax.scan(lambda x, _: (x + normal(key), None), 0.0, length=3)[0]


def used_whole_and_in_part(key):
    keys = jax.random.split(key, 3)
    return jax.vmap(normal)(keys) + normal(keys[1])


def used_in_a_branch_and_after(key):
    x = jax.lax.cond(key.shape == (), normal, lambda _: 0.0, key)
    return jax.lax.cond(x > 0, normal, lambda _: 0.0, key) + normal(key)


@pytest.mark.parametrize(
    "function",
    [
        twice,
        jax.jit(twice),
        split_and_used,
        folded_with_equal_numbers,
        used_in_a_loop,
        used_whole_and_in_part,
        used_in_a_branch_and_after,
    ],
)
def test_a_key_that_is_used_twice_is_found(function):
    assert uses_of_keys(function, KEY).reused


def split(key):
    first, second = jax.random.split(key)
    return normal(first) + normal(second)


def folded_with_different_numbers(key):
    return normal(jax.random.fold_in(key, 0)) + normal(jax.random.fold_in(key, 1))


def folded_in_a_loop(key):
    def body(x, i):
        return x + normal(jax.random.fold_in(key, i)), None

    return jax.lax.scan(body, 0.0, NUMBERS)[0]


def one_per_turn(key):
    body = lambda x, key: (x + normal(key), None)  # noqa: E731
    return jax.lax.scan(body, 0.0, jax.random.split(key, 3))[0]


def used_in_each_branch(key):
    return jax.lax.switch(key.ndim, (normal, jax.random.uniform), key)


@pytest.mark.parametrize(
    "function",
    [
        split,
        lambda key: jax.vmap(split)(jax.random.split(key, 3)),
        folded_with_different_numbers,
        folded_in_a_loop,
        one_per_turn,
        used_in_each_branch,
    ],
)
def test_keys_that_are_used_once_are_not_found(function):
    uses = uses_of_keys(function, KEY)
    assert uses.seen and not uses.reused


def test_a_key_that_no_argument_gave_is_known():
    uses = uses_of_keys(lambda key: normal(jax.random.key(1)) + normal(key), KEY)
    assert sorted(uses.origins()) == [frozenset(), frozenset({0})]


def stages():
    for name in recipes.names():
        recipe = recipes.load(name)
        if recipe.noisy_student is None:
            yield pytest.param(recipe.config, id=name)
            if name == "fashion_mnist_fixmatch":
                yield from other_methods(recipe.config)
            continue
        for stage in plan(recipe.noisy_student, Path()):
            # Later students differ in their size.
            if isinstance(stage, TrainStage) and "round2" not in stage.name:
                yield pytest.param(stage.config, id=f"{name}-{stage.name}")


def other_methods(config):
    """The methods of `--consistency` with draws of their own."""
    for consistency in ("adamatch", "mixmatch"):
        options = dataclasses.replace(config.unlabelled, consistency=consistency)
        changed = dataclasses.replace(config, unlabelled=options)
        yield pytest.param(changed, id=consistency)
    balanced = dataclasses.replace(config, uneven_classes=UnevenClasses(abc=True))
    yield pytest.param(balanced, id="abc")


def small(config):
    """The config with one narrow block, and its noise as it is."""
    network, is_residual = config.network, "resnet" in config.network.model
    stage = {"stage_sizes": (1,), "width": 4} if is_residual else {}
    stage = stage or {"stages": ((16, 2, 3, 1, 1),)}
    return dataclasses.replace(
        config,
        network=dataclasses.replace(
            network, model_fields={**network.model_fields, **stage}
        ),
        input=dataclasses.replace(config.input, batch_size=8),
    )


@pytest.mark.slow
@pytest.mark.parametrize("config", [*stages()])
def test_no_recipe_uses_a_key_twice(config):
    config = small(config)
    images = rest = stand_in(config)
    if config.unlabelled.pseudo_labels:
        shape = len(images), len(images.class_names)
        rest = images.with_columns(label=np.zeros(shape, np.float32))
    unlabelled = rest if config.unlabelled.unlabelled else None
    program = build(config, "", (images, images), unlabelled)
    shapes = train_step_shapes(program)
    uses = uses_of_keys(program.train_step, *shapes)
    assert not uses.reused
    # Each depends on the run's key and on the number of the step.
    leaves = [path for path, _ in jax.tree.leaves_with_path(shapes)]
    names = [jax.tree_util.keystr(path) for path in leaves]
    needed = {names.index("[0].step"), len(names) - 1}
    assert all(needed <= origins for origins in uses.origins())
