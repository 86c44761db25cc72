import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import traverse_util

import cnn_flax
from cnn_flax.models.dcn import OFFSET_RATE, DeformResNet, label_offsets
from cnn_flax.models.resnet import BasicBlock, Bottleneck, ResNet
from tests.support import figures
from tests.support.model_checks import check_logits, check_training_pass
from tests.support.small_models import feature_shapes, forward, random_variables

DEPTHS = ("18", "34", "50", "101")

# The figures are of torchvision's nets with its deform_conv2d instead of conv2, under
# mmcv's names (see their "source"). The seeded branches send taps far away, and errors
# grow from block to block: torch's own float32 is off by 5e-3 in ResNet-50, which is
# therefore compared only in float64.


@pytest.mark.slow
def test_logits_match_the_reference_in_float32():
    check_logits("resnet18_dcnv2", "tv_resnet18_dcnv2")


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["resnet18_dcnv2", pytest.param("resnet50_dcn", marks=pytest.mark.long)]
)
def test_a_training_pass_matches_the_reference_in_float64(name, float64, optimized):
    check_training_pass(name, f"tv_{name}")


@functools.cache
def parameters_of(name):
    return cnn_flax.model_info(name).parameters


@pytest.mark.slow
@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize(("version", "outputs"), [("dcn", 18), ("dcnv2", 27)])
def test_the_branches_are_what_a_resnet_gains(depth, version, outputs):
    blocks = {"18": (2, 2, 2), "34": (4, 6, 3), "50": (4, 6, 3), "101": (4, 23, 3)}
    gained = sum(
        count * (9 * width * outputs + outputs)
        for count, width in zip(blocks[depth], (128, 256, 512), strict=True)
    )
    plain = parameters_of(f"resnet{depth}")
    assert parameters_of(f"resnet{depth}_{version}") == plain + gained


SMALL = {"stage_sizes": (1, 2), "width": 8, "num_classes": 5}


def small(block=Bottleneck, **fields):
    return DeformResNet(**{**SMALL, "deform_stages": (2,), "block": block, **fields})


def parameter_names(variables):
    return {"/".join(path) for path in traverse_util.flatten_dict(variables["params"])}


SHAPE = (4, 16, 16, 3)
IMAGES = jax.random.normal(jax.random.key(0), SHAPE)


@pytest.mark.parametrize("block", [BasicBlock, Bottleneck])
@pytest.mark.parametrize("stages", [(), (1,), (2,), (1, 2)])
def test_deform_stages_take_the_second_convolution_of_their_blocks(block, stages):
    model = small(block, deform_stages=stages)
    variables = jax.eval_shape(model.init, jax.random.key(0), IMAGES)
    branches = {n for n in parameter_names(variables) if "offset" in n}
    blocks = {1: ["stage1_block1"], 2: ["stage2_block1", "stage2_block2"]}
    assert branches == {
        f"{name}/conv2/conv/offset/{leaf}"
        for stage in stages
        for name in blocks[stage]
        for leaf in ("kernel", "bias")
    }


def without_branches(params):
    """Zeroes the branches for offsets and masks, as in a new net."""
    return traverse_util.path_aware_map(
        lambda path, leaf: 0 * leaf if "offset" in path else leaf, params
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("block", "modulated", "share"), [(BasicBlock, False, 1), (Bottleneck, True, 0.5)]
)
def test_a_new_net_is_the_plain_one_with_half_the_kernels_in_v2(
    block, modulated, share
):
    model = small(block, modulated=modulated)
    variables = random_variables(model, *SHAPE)
    variables["params"] = without_branches(variables["params"])
    plain = traverse_util.flatten_dict(variables["params"], sep="/")
    for name in list(plain):
        if "offset" in name:
            del plain[name]
            kernel = name.partition("/offset")[0] + "/kernel"
            if name.endswith("bias"):  # Once a layer.
                plain[kernel] = share * plain[kernel]
    plain = {**variables, "params": traverse_util.unflatten_dict(plain, sep="/")}
    logits, *_ = forward(model, variables, IMAGES)
    expected, *_ = forward(ResNet(**SMALL, block=block), plain, IMAGES)
    np.testing.assert_allclose(logits, expected, atol=1e-4)


@pytest.mark.slow
def test_features_have_the_plain_nets_shapes():
    shapes = [
        feature_shapes(cnn_flax.create_model(name), 1, 224, 224, 3)
        for name in ("resnet50", "resnet50_dcnv2")
    ]
    assert shapes[0] == shapes[1]


@pytest.mark.slow
def test_every_parameter_of_a_new_net_gets_a_gradient():
    model = small()
    variables = random_variables(model, *SHAPE)

    @jax.grad
    def gradients(params):
        logits, *_ = forward(model, {**variables, "params": params}, IMAGES, True)
        return cnn_flax.losses.cross_entropy(logits, jnp.arange(4))

    params = gradients(without_branches(variables["params"]))
    for path, gradient in jax.tree.leaves_with_path(params):
        assert np.abs(gradient).max() > 0, path


@pytest.mark.slow
def test_bfloat16_computes_in_bfloat16_and_keeps_the_rest_in_float32():
    model = small(dtype=jnp.bfloat16)
    variables = random_variables(model, *SHAPE)
    assert {x.dtype for x in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    variables["params"] = without_branches(variables["params"])
    logits, features, _ = forward(model, variables, IMAGES)
    chex.assert_type([features["stage2"], logits], [jnp.bfloat16, jnp.float32])
    exact, *_ = forward(small(), variables, IMAGES)
    # bfloat16 has 8 bits: 0.4 % per operation, over about ten of them.
    np.testing.assert_allclose(logits, exact, atol=0.05 * np.abs(exact).max())


def test_offsets_and_masks_learn_at_a_tenth_of_the_rate():
    model = small()
    gradients = random_variables(model, *SHAPE)["params"]
    labels = traverse_util.flatten_dict(label_offsets(gradients), sep="/")
    assert {n for n in labels if labels[n] == "offset"} == {
        f"stage2_block{i}/conv2/conv/offset/{leaf}"
        for i in (1, 2)
        for leaf in ("kernel", "bias")
    }
    tx = optax.multi_transform(
        {"offset": optax.sgd(OFFSET_RATE * 0.5), "rest": optax.sgd(0.5)}, label_offsets
    )
    updates, _ = tx.update(gradients, tx.init(gradients))
    expected = traverse_util.path_aware_map(
        lambda path, g: (-0.05 if "offset" in path else -0.5) * g, gradients
    )
    chex.assert_trees_all_close(updates, expected, rtol=1e-6)


def test_stages_that_do_not_exist_are_refused():
    with pytest.raises(ValueError, match=r"among 1, 2, 3, 4; got \(4, 5\)"):
        cnn_flax.create_model("resnet18_dcn", deform_stages=(4, 5))


# Weights.


def test_a_plain_resnets_weights_fit_and_the_branches_are_zero():
    shapes = figures.model_figures("tv_resnet18")["state_dict"]
    state_dict = figures.seeded_state_dict(shapes)
    variables = cnn_flax.weights.from_torch("resnet18_dcnv2", state_dict)
    back = cnn_flax.weights.to_torch("resnet18_dcnv2", variables)
    branches = {name: back.pop(name) for name in list(back) if "conv_offset" in name}
    chex.assert_trees_all_equal(back, state_dict)
    assert branches["layer4.1.conv2.conv_offset.weight"].shape == (27, 512, 3, 3)
    assert len(branches) == 12 and not any(map(np.any, branches.values()))


def test_weights_with_some_branches_alone_are_refused(monkeypatch):
    # Two candidates are enough for the message that says which model fits.
    monkeypatch.setattr(
        "cnn_flax.weights.convert.list_models", lambda: ["resnet18", "resnet18_dcnv2"]
    )
    shapes = figures.model_figures("tv_resnet18_dcnv2")["state_dict"]
    state_dict = figures.seeded_state_dict(shapes)
    del state_dict["layer3.0.conv2.conv_offset.bias"]
    with pytest.raises(
        cnn_flax.weights.WeightsError,
        match="Missing: 'layer3.0.conv2.conv_offset.bias'",
    ):
        cnn_flax.weights.from_torch("resnet18_dcnv2", state_dict)


def test_weights_come_back_bit_by_bit_and_follow_deform_stages():
    shapes = figures.model_figures("tv_resnet18_dcnv2")["state_dict"]
    state_dict = figures.seeded_state_dict(shapes)
    state_dict = {
        name: value
        for name, value in state_dict.items()
        if "conv_offset" not in name or name.startswith("layer4")
    }
    variables = cnn_flax.weights.from_torch(
        "resnet18_dcnv2", state_dict, deform_stages=(4,)
    )
    chex.assert_trees_all_equal(
        cnn_flax.weights.to_torch("resnet18_dcnv2", variables), state_dict
    )
