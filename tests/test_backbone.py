"""Backbones: their maps, names and strides; dilation against torchvision and timm."""

import json
import pickle
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

import cnn_flax
from tests.support import figures
from tests.support.model_checks import relative_norm
from tests.support.small_models import (
    SMALLEST,
    cut_down,
    feature_shapes,
    random_variables,
    small_fields,
    variable_shapes,
)

TINY = {"stage_sizes": (1, 1, 1), "width": 4}


def backbone(name="resnet18", **fields):
    return cnn_flax.create_model(name, features_only=True, **{**TINY, **fields})


@cache
def dilated():
    text = (figures.REFERENCE / "models" / "dilated.json").read_text()
    return json.loads(text)["cases"]


@pytest.mark.slow
@pytest.mark.parametrize("case", list(dilated()))
def test_dilated_maps_are_those_of_torchvision_and_timm(case, float64):
    reference = dilated()[case]
    name, fields = reference["model"], reference["fields"]
    state_dict = figures.seeded_state_dict(reference["state_dict"])
    variables = cnn_flax.weights.from_torch(name, state_dict, **fields)
    fields = {"features_only": True, "dtype": jnp.float64, **fields}
    model = cnn_flax.create_model(name, **fields)
    variables = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), variables)
    images = jnp.asarray(figures.images(1, 49, 65), jnp.float64)
    *_, last = jax.jit(model.apply)(variables, images).values()
    with np.load(figures.REFERENCE / "models" / "dilated.npz") as maps:
        expected = maps[case]
    assert relative_norm(last[..., ::64], expected) < 1e-12


# Not where a position sees the whole image (squeeze and excitation), or where padding
# depends on the size ("SAME").
@pytest.mark.slow
@pytest.mark.parametrize(
    "name, fields, output_stride",
    [
        ("resnet18", TINY, 4),
        ("resnet50", {**TINY, "stride_in_1x1": True, "shortcut": "zero_pad"}, 4),
        ("legacy_senet154", {**TINY, "groups": 2, "attention": None}, 4),
        ("mobilenet_v2", {"width_multiplier": 0.1, "stage_sizes": (1, 1, 1)}, 2),
    ],
)
def test_positions_compute_what_they_do_without_dilation(name, fields, output_stride):
    fields = {"features_only": True, **fields}
    strided = cnn_flax.create_model(name, **fields)
    dilated = cnn_flax.create_model(name, output_stride=output_stride, **fields)
    images = jax.random.normal(jax.random.key(0), (1, 65, 49, 3))
    variables = random_variables(strided, *images.shape)
    before, after = (m.apply(variables, images) for m in (strided, dilated))
    steps = []
    for stage, expected in before.items():
        steps.append(-(-after[stage].shape[1] // expected.shape[1]))
        np.testing.assert_allclose(
            after[stage][:, :: steps[-1], :: steps[-1]], expected, rtol=1e-4, atol=1e-5
        )
    assert steps[-1] == 4


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALLEST.values(), ids=SMALLEST)
def test_a_backbone_has_the_maps_and_the_variables_of_its_network(name):
    fields = small_fields(name)
    features = feature_shapes(cut_down(name), 2, 65, 70, 3)
    whole = flat(variable_shapes(cut_down(name), 2, 65, 70, 3))
    del fields["num_classes"]
    model = cnn_flax.create_model(name, features_only=True, **fields)
    variables = variable_shapes(model, 2, 65, 70, 3)
    images = jax.ShapeDtypeStruct((2, 65, 70, 3), jnp.float32)
    maps = jax.eval_shape(model.apply, variables, images)
    assert maps and {k: v.shape for k, v in maps.items()}.items() <= features.items()
    mine = flat(variables)
    assert {k: v.shape for k, v in mine.items()}.items() <= {
        k: v.shape for k, v in whole.items()
    }.items()
    assert not any("head" in path for path in mine)


def flat(tree) -> Any:
    return traverse_util.flatten_dict(tree, sep="/")


def test_layers_after_the_last_map_are_left_out():
    variables = variable_shapes(backbone(out_stages=("stem", 2)), 1, 32, 32, 3)
    assert {path.split("/")[1] for path in flat(variables)} == {
        *("conv1", "stage1_block1", "stage2_block1")
    }


def test_the_default_is_one_map_per_stride():
    mobilenet = partial(cnn_flax.create_model, "mobilenet_v2", features_only=True)
    assert mobilenet().out_stages == tuple(f"stage{i}" for i in (1, 2, 3, 5, 7))
    assert mobilenet(stage_sizes=(1, 1)).out_stages == ("stage1", "stage2")
    assert backbone().out_stages == ("stage1", "stage2", "stage3")


def test_training_updates_the_statistics():
    model, images = backbone(out_stages=1), jnp.ones((2, 16, 16, 3))
    variables = random_variables(model, *images.shape)
    maps, new = jax.jit(
        lambda v, x: model.apply(v, x, train=True, mutable=["batch_stats"])
    )(variables, images)
    assert list(maps) == ["stage1"]
    before = flat(variables["batch_stats"])
    after = flat(new["batch_stats"])
    assert after.keys() == before.keys()
    assert not any(np.array_equal(before[k], after[k]) for k in before)


def test_feature_info_describes_the_maps():
    infos = cnn_flax.feature_info(backbone(out_stages=(1, 3), output_stride=8), 64)
    assert [(i.name, i.channels, i.stride) for i in infos] == [
        ("stage1", 4, (4, 4)),
        ("stage3", 16, (8, 8)),
    ]
    same = cnn_flax.feature_info(backbone(), 64)[-1].receptive_field
    field = infos[-1].receptive_field
    assert field and same and field.size == same.size  # Dilation sees as far.


def test_published_weights_fill_a_backbone(tmp_path):
    model = cnn_flax.create_model("resnet18", **TINY, num_classes=5)
    variables = random_variables(model, 1, 32, 32, 3)
    path = tmp_path / "weights.npz"
    np.savez(path, **cnn_flax.weights.to_torch("resnet18", variables))
    images = jax.random.normal(jax.random.key(0), (1, 32, 32, 1))
    loaded, weights = cnn_flax.load_pretrained(
        *("resnet18", path),
        **{"features_only": True, "out_stages": (2,), "output_stride": 4, **TINY},
        in_channels=1,
    )
    assert loaded == backbone(out_stages=(2,), output_stride=4)
    assert not any("stage3" in path for path in flat(weights))
    (grey,) = loaded.apply(weights, images).values()
    whole = cnn_flax.create_model("resnet18", **TINY, output_stride=4)
    expected = cnn_flax.features(
        whole.clone(num_classes=0), variables, jnp.tile(images, 3), ["stage2"]
    )
    np.testing.assert_allclose(grey, expected["stage2"], rtol=1e-4, atol=1e-5)


def test_equal_backbones_are_equal_and_pickle():
    assert backbone() == backbone()
    assert hash(backbone()) == hash(pickle.loads(pickle.dumps(backbone())))
    assert backbone() != backbone(out_stages=(1,))


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"out_stages": (1, "stage1")}, "different stages"),
        ({"out_stages": (1.5,)}, "names such as"),
        ({"num_classes": 10}, "no head"),
        ({"output_stride": 12}, "one of 4, 8, 16, 32, got 12"),
        ({"features_only": False, "out_stages": (1,)}, "features_only=True"),
    ],
)
def test_wrong_arguments_are_named(fields, message):
    with pytest.raises((ValueError, TypeError), match=message):
        cnn_flax.create_model("resnet18", **{"features_only": True, **fields})


def test_a_net_without_dilation_says_which_have_it():
    with pytest.raises(ValueError, match="dcn, efficientnet, mobilenet, resnet, senet"):
        cnn_flax.create_model("vgg16", features_only=True, output_stride=8)
    cnn_flax.create_model("vgg16", features_only=True, output_stride=32)


def test_a_map_that_is_not_there_is_named():
    with pytest.raises(ValueError, match="no map 'stage9'. It has: stem, stage1"):
        variable_shapes(backbone(out_stages=(9,)), 1, 32, 32, 3)
