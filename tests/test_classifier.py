"""Heads that are replaced, and poolings."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

import cnn_flax
from cnn_flax.layers.global_pool import global_pool
from cnn_flax.weights.variables import flatten
from tests.support.small_models import SMALLEST, random_variables, small_fields

X = np.random.default_rng(0).normal(size=(2, 3, 4, 5))
TINY = {"stage_sizes": (1, 1), "width": 4}
MAPS = 5.0 + X


def pooled(name, x=X, **variables):
    class Pool(cnn_flax.layers.GeM):  # A module that may make others.
        pass

    if name == "gem":
        return Pool().apply(variables, jnp.asarray(x))
    return global_pool(name)(jnp.asarray(x))


def test_poolings_are_those_of_their_definitions():
    mean, most = X.mean((1, 2)), X.max((1, 2))
    with jax.enable_x64():
        np.testing.assert_allclose(pooled("avg"), mean, rtol=1e-12)
        np.testing.assert_array_equal(pooled("max"), most)
        np.testing.assert_allclose(pooled("avgmax"), (mean + most) / 2, rtol=1e-12)
        for p in (1.0, 2.5, 3.0):
            clipped = np.maximum(X, 1e-6)
            expected = (clipped**p).mean((1, 2)) ** (1 / p)
            found = pooled("gem", params={"p": jnp.array(p)})
            np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_poolings_of_bfloat16_are_computed_in_float32():
    narrow = jnp.asarray(X, jnp.bfloat16)
    p = {"p": jnp.array(3.0)}
    for name in ("avg", "max", "avgmax", "gem"):
        variables = {"params": p} if name == "gem" else {}
        found = pooled(name, narrow, **variables)
        assert found.dtype == jnp.float32
        wide = pooled(name, narrow.astype(jnp.float32), **variables)
        np.testing.assert_array_equal(found, wide)


def test_the_power_of_gem_is_learned():
    def loss(p):
        return pooled("gem", MAPS, params={"p": p}).sum()

    step = 1e-4
    with jax.enable_x64():
        slope = jax.grad(loss)(jnp.array(3.0))
        above, below = (float(loss(jnp.array(3.0 + s))) for s in (step, -step))
    np.testing.assert_allclose(slope, (above - below) / (2 * step), rtol=1e-6)


@pytest.mark.parametrize("family", sorted(SMALLEST))
def test_every_family_but_those_of_dense_classifiers_has_the_poolings(family):
    name = SMALLEST[family]
    fields = small_fields(name)
    if not hasattr(cnn_flax.create_model(name), "global_pool"):
        assert family in ("alexnet", "vgg")
        with pytest.raises(TypeError, match="has no field 'global_pool'"):
            cnn_flax.create_model(name, global_pool="max")
        return
    images = jax.ShapeDtypeStruct((2, 64, 64, 3), jnp.float32)
    paths = {}
    for pooling in ("avg", "max", "avgmax", "gem"):
        model = cnn_flax.create_model(
            name, **{**fields, "num_classes": 7, "global_pool": pooling}
        )
        logits, shapes = jax.eval_shape(
            model.init_with_output, jax.random.key(0), images
        )
        assert logits.shape == (2, 7)
        paths[pooling] = flatten(shapes).keys()
    assert paths["avg"] == paths["max"] == paths["avgmax"]
    assert paths["gem"] - paths["avg"] == {"params/global_pool/p"}


def tiny(**fields):
    model = cnn_flax.create_model("resnet18", **{**TINY, "num_classes": 5, **fields})
    return model, random_variables(model, 1, 16, 16, 3)


def test_a_new_head_keeps_the_body():
    model, variables = tiny()
    new, changed = cnn_flax.reset_classifier(model, variables, 3, image_size=16)
    assert new == model.clone(num_classes=3)
    assert changed["params"].pop("head")["kernel"].shape == (8, 3)
    same = {**variables["params"]}
    same.pop("head")
    chex.assert_trees_all_equal(changed["params"], same)
    chex.assert_trees_all_equal(changed["batch_stats"], variables["batch_stats"])


def test_a_head_of_the_same_size_is_new_too_and_follows_from_the_key():
    model, variables = tiny()
    kernels = [
        cnn_flax.reset_classifier(
            model, variables, 5, key=jax.random.key(seed), image_size=16
        )[1]["params"]["head"]["kernel"]
        for seed in (0, 0, 1)
    ]
    np.testing.assert_array_equal(kernels[0], kernels[1])
    assert (kernels[0] != kernels[2]).all()
    assert (kernels[0] != variables["params"]["head"]["kernel"]).all()


def test_no_head_gives_the_features_and_gem_a_power():
    model, variables = tiny()
    images = jax.random.uniform(jax.random.key(1), (2, 16, 16, 3))
    body, features = cnn_flax.reset_classifier(model, variables, 0, image_size=16)
    expected = cnn_flax.features(model, variables, images, ["pre_logits"])
    np.testing.assert_array_equal(body.apply(features, images), expected["pre_logits"])
    gem, learned = cnn_flax.reset_classifier(
        body, features, 0, global_pool="gem", image_size=16
    )
    maps = cnn_flax.features(model, variables, images, ["stage2"])["stage2"]
    np.testing.assert_allclose(
        gem.apply(learned, images),
        pooled("gem", maps, params={"p": jnp.array(3.0)}),
        rtol=1e-6,
    )


def test_auxiliary_heads_are_new_too():
    model = cnn_flax.create_model("googlenet", num_classes=5)
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))
    zeros = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)
    _, changed = cnn_flax.reset_classifier(model, zeros, 3, image_size=64)
    fresh = {k for k, x in flatten(changed).items() if np.shape(x)[-1] == 3}
    assert {path.split("/")[1] for path in fresh} == {"head", "aux1", "aux2"}


def test_what_does_not_fit_is_refused():
    model, variables = tiny()
    other, _ = tiny(width=8)
    with pytest.raises(ValueError, match="variables are not the model's: batch_stats"):
        cnn_flax.reset_classifier(other, variables, 3, image_size=16)
    with pytest.raises(ValueError, match="one of avg, max, avgmax, gem, got 'mean'"):
        cnn_flax.reset_classifier(model, variables, 3, global_pool="mean")
    vgg = cnn_flax.create_model("vgg11")
    with pytest.raises(TypeError, match="VGG has no field 'global_pool'"):
        cnn_flax.reset_classifier(vgg, {}, 3, global_pool="max")


def test_weights_are_loaded_with_another_pooling(tmp_path):
    model, variables = tiny()
    path = tmp_path / "weights.safetensors"
    save_file({k: np.asarray(x) for k, x in flatten(variables).items()}, path)
    gem, loaded = cnn_flax.load_pretrained("resnet18", path, global_pool="gem", **TINY)
    assert gem == model.clone(global_pool="gem")
    assert loaded["params"].pop("global_pool")["p"] == 3
    chex.assert_trees_all_equal(loaded, variables)
    # And again, with a power that was learned.
    loaded["params"]["global_pool"] = {"p": np.float32(2.5)}
    save_file({k: np.asarray(x) for k, x in flatten(loaded).items()}, path)
    _, again = cnn_flax.load_pretrained("resnet18", path, global_pool="gem", **TINY)
    chex.assert_trees_all_equal(again, loaded)
