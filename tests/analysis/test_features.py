import json
import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

import cnn_flax
from tests.support.figures import REFERENCE
from tests.support.small_models import random_variables

# Channels and stride of each feature, according to the papers' tables.
DECLARED = {
    name: group["features"]
    for group in json.loads((REFERENCE / "features.json").read_text())
    for name in group["models"]
}


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    ["alexnet", "vgg11", "googlenet", "seresnet18", "densenet121", "resnet18_dcn"],
)
def test_features_have_the_declared_channels_and_strides(name):
    infos = cnn_flax.feature_info(cnn_flax.create_model(name), 64)
    found = {f.name: [f.channels, *(f.stride or ())[:1]] for f in infos}
    assert found == DECLARED[name]
    assert list(found) == list(DECLARED[name])


@pytest.mark.slow
def test_features_have_their_fields():
    model = cnn_flax.create_model("tf_efficientnet_b0")
    for ignored, sizes in ((False, [3, math.inf, math.inf]), (True, [3, 7, 19])):
        infos = cnn_flax.feature_info(model, 224, ignore_global=ignored)
        fields = [info.receptive_field for info in infos[:3]]
        assert [field.size[0] for field in fields if field] == sizes


@pytest.fixture(scope="module")
def net():
    model = cnn_flax.create_model("resnet18", width=4, num_classes=5)
    images = jax.random.normal(jax.random.key(0), (2, 32, 48, 3))
    return model, random_variables(model, *images.shape), images


@pytest.mark.slow
def test_features_are_what_the_model_sows(net):
    model, variables, images = net
    _, state = model.apply(variables, images, mutable=["intermediates"])
    sown = state["intermediates"]
    found = cnn_flax.features(model, variables, images, ["stage4", "stem"])
    assert list(found) == ["stage4", "stem"]
    for name, array in found.items():
        np.testing.assert_array_equal(array, sown[name][0])
    chex.assert_shape(found["stem"], (2, 8, 12, 4))


def test_an_unknown_feature_is_refused_with_the_nearest_names(net):
    model, variables, images = net
    with pytest.raises(ValueError, match="no feature 'stage5'. Nearest: stage4"):
        cnn_flax.features(model, variables, images, ["stage1", "stage5"])
    with pytest.raises(ValueError, match=r"a list of names, such as \['stage1'\]"):
        cnn_flax.features(model, variables, images, "stage1")


class Sower(nn.Module):
    """A user's net: sows twice under one name, a scalar, and inside a submodule."""

    @nn.compact
    def __call__(self, x, train):
        x = Inner(name="inner")(x)
        self.sow("intermediates", "map", x)
        self.sow("intermediates", "map", x + 1)
        self.sow("intermediates", "penalty", x.mean())
        return x.mean((1, 2))


class Inner(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.Conv(4, (3, 3), strides=2)(x)
        self.sow("intermediates", "deep", x)
        return x


def test_any_flax_module_that_sows_has_features():
    infos = cnn_flax.feature_info(Sower(), (8, 12), channels=1, train=False)
    assert [(f.name, f.channels) for f in infos] == [("inner/deep", 4), ("map", 4)]
    assert infos[0].stride == (2, 2)
    images = jnp.ones((1, 8, 12, 1))
    variables = Sower().init(jax.random.key(0), images, train=False)
    names = ["map", "inner/deep"]
    found = cnn_flax.features(Sower(), variables, images, names, train=False)
    np.testing.assert_array_equal(found["map"], found["inner/deep"] + 1)


def test_a_module_that_sows_nothing_has_no_features():
    assert cnn_flax.feature_info(nn.Dense(3), 8) == ()
    variables = nn.Dense(3).init(jax.random.key(0), jnp.ones((1, 3)))
    with pytest.raises(ValueError, match="It has: none"):
        cnn_flax.features(nn.Dense(3), variables, jnp.ones((1, 3)), ["map"])
