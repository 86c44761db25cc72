"""Receptive fields of the models, and errors for bad arguments."""

import json
import math

import jax
import jax.numpy as jnp
import pytest
from flax import linen as nn
from jax import lax

from cnn_flax import create_model, receptive_field
from cnn_flax.analysis import ReceptiveFieldError, receptive_fields
from cnn_flax.layers import deform_conv2d
from tests.support.figures import REFERENCE

# Counted by brute force (gradients of positive weights) on torchvision's variants.
FIGURES = json.loads((REFERENCE / "receptive_field.json").read_text())


def numbers(field):
    """Size, stride and padding, which are equal in both directions."""
    assert field.size[0] == field.size[1] and field.stride[0] == field.stride[1]
    assert field.padding[0] == field.padding[1]
    return field.size[0], field.stride[0], field.padding[0]


def pool3(x):
    return nn.avg_pool(x, (3, 3), padding="SAME")


@pytest.mark.parametrize("name", [name for name in FIGURES if name != "note"])
def test_every_feature_has_the_reference_field(name):
    fields = receptive_fields(create_model(name), 224)
    for feature, expected in FIGURES[name].items():
        if name == "vgg16":  # Its stages end with the poolings.
            feature = feature.replace("pool", "stage")
        want = tuple(expected[key] for key in ("size", "stride", "padding"))
        assert numbers(fields[feature]) == want, feature


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("resnet50", 483),
        pytest.param("resnet101", 1027, marks=pytest.mark.slow),
        pytest.param("resnet152", 1507, marks=pytest.mark.slow),
    ],
)
def test_resnets_with_the_stride_in_the_1x1_have_the_published_field(name, size):
    # Araujo, Norris and Sim 2019, https://distill.pub/2019/computing-receptive-fields.
    field = receptive_field(create_model(name, stride_in_1x1=True), 224, "stage4")
    assert numbers(field)[:2] == (size, 32)


@pytest.mark.parametrize(
    ("name", "at", "size"), [("alexnet", "layer6", 355), ("vgg16", "fc6", 404)]
)
def test_first_dense_layer_has_the_field_of_the_equivalent_convolution(name, at, size):
    # Long, Shelhamer and Darrell 2014, https://arxiv.org/abs/1411.4038, table 1.
    assert numbers(receptive_field(create_model(name), 224, at))[:2] == (size, 32)


# Counted by brute force on torchvision 0.29.1 and timm 1.0.31, as the reference is.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "image_size", "at", "expected"),
    [
        ("googlenet", 224, "stage4", (235, 16, 103)),
        ("googlenet", 224, "stage5", (379, 32, 167)),
        ("resnet50d", 224, "stage4", (431, 32, 215)),
        ("densenet121", 224, "stage4", (2071, 32, 1021)),
        ("efficientnet_b3", 224, "stage5", (575, 16, 287)),
        ("legacy_seresnet50", 224, "stage4", (483, 32, 239)),
        ("tf_efficientnet_b0", 224, "stage7", (851, 32, 394)),
        ("tf_efficientnet_b0", 225, "stage7", (851, 32, 425)),
        ("tf_efficientnet_b0", 240, "stage7", (851, 32, 410)),
    ],
)
def test_further_nets_have_the_field_of_their_reference(name, image_size, at, expected):
    model = create_model(name)
    assert (
        numbers(receptive_field(model, image_size, at, ignore_global=True)) == expected
    )


def test_squeeze_and_excitation_sees_everything_unless_ignored():
    model = create_model("seresnet18")
    field = receptive_field(model, 64, "stage2")
    assert field.size == field.padding == (math.inf, math.inf)
    assert field.stride == (8, 8)
    assert "infinite" in str(field)
    plain = receptive_field(create_model("resnet18"), 64, "stage2")
    assert receptive_field(model, 64, "stage2", ignore_global=True) == plain


def test_head_sees_everything():
    field = receptive_field(create_model("resnet18"), 64, "pre_logits")
    assert field.size == (math.inf, math.inf)


def test_pooling_window_as_large_as_the_map_is_a_gate_where_it_is_broadcast():
    def model(x):
        return x * nn.avg_pool(x, (8, 8))

    assert receptive_field(model, 8).size == (math.inf, math.inf)
    assert receptive_field(model, 8, ignore_global=True).size == (1, 1)


def test_deformable_field_is_data_dependent_and_has_the_undeformed_size():
    field = receptive_field(create_model("resnet18_dcnv2"), 64, "stage3")
    plain = receptive_field(create_model("resnet18"), 64, "stage3")
    assert field.data_dependent and not plain.data_dependent
    assert (field.size, field.padding) == (plain.size, plain.padding)
    assert str(field) == (
        "stage3: data-dependent (deformable); undeformed 211 px, stride 16, padding 105"
    )


def test_adaptive_pooling_of_a_classifier_takes_windows():
    # 8 positions of stage 5 become 7: windows of two, one step more than at 224 px.
    field = receptive_field(create_model("vgg11", width=4, hidden_features=8), 256)
    assert field.name == "stage5"
    at_fc6 = receptive_field(
        create_model("vgg11", width=4, hidden_features=8), 256, "fc6"
    )
    assert at_fc6.size[0] == field.size[0] + 7 * 32


class Plain(nn.Module):
    """A user's net: directions differ, `train` has no default."""

    @nn.compact
    def __call__(self, x, train):
        x = nn.relu(nn.Conv(4, (5, 3))(x))
        x = nn.max_pool(x, (2, 2), (2, 2), padding="SAME")
        x = nn.BatchNorm(use_running_average=not train)(x)
        x = nn.Dropout(0.5, deterministic=not train)(x)
        conv = nn.Conv(4, (3, 3), padding="CIRCULAR", name="twice")
        return nn.Dense(3)(conv(conv(x)).mean((1, 2)))


def test_a_users_net_works_unchanged():
    fields = receptive_fields(Plain(), 32, channels=1, train=False)
    assert fields["Conv_0"].size == (5, 3)
    assert fields["BatchNorm_0"].size == (6, 4)
    assert fields["twice/0"].size == (10, 8)
    assert fields["twice/1"].size == (14, 12)
    assert fields["twice/1"].padding == (6, 5)
    assert fields["output"].size == (math.inf, math.inf)
    default = receptive_field(Plain(), 32, train=False)
    assert default == fields["twice/1"]


def test_normalisation_over_the_batch_sees_everything():
    fields = receptive_fields(Plain(), 32, train=True)
    assert fields["Conv_0"].size == (5, 3)
    assert fields["BatchNorm_0"].size == (math.inf, math.inf)


def test_height_and_width_may_differ():
    model = create_model("tf_efficientnet_b0", stages=[(8, 1, 3, 2, 1)])
    field = receptive_field(model, (32, 33), "stem")
    assert field.padding == (0, 1)


def test_a_missing_array_is_refused_with_the_nearest_names():
    with pytest.raises(ReceptiveFieldError, match="no array 'stage9'.*Nearest: stage4"):
        receptive_field(create_model("resnet18"), 32, "stage9")


def test_an_operation_without_a_rule_is_named_only_if_it_is_on_the_path():
    def model(x):
        before = pool3(x)
        return {"before": before, "after": jnp.fft.fft(before).real}

    assert receptive_field(model, 8, "before").size == (3, 3)
    with pytest.raises(ReceptiveFieldError, match="'after'.*operation 'fft'"):
        receptive_field(model, 8, "after")
    with pytest.raises(ReceptiveFieldError, match="'fft'"):
        receptive_field(model, 8)


def test_a_platform_dependent_operation_takes_the_default():
    def model(x):
        return lax.platform_dependent(x, cpu=lambda x: x, default=pool3)

    assert receptive_field(model, 8).size == (3, 3)


@pytest.mark.parametrize(
    "model",
    [
        lambda x: lax.cond(x.sum() > 0, pool3, pool3, x),
        lambda x: lax.platform_dependent(x, cpu=pool3, cuda=pool3),
    ],
)
def test_other_conditionals_are_refused_by_name(model):
    with pytest.raises(ReceptiveFieldError, match="operation 'cond'"):
        receptive_field(model, 8, "output")


def test_array_that_does_not_depend_on_the_image_is_refused():
    with pytest.raises(ReceptiveFieldError, match="not depend on the image"):
        receptive_field(lambda x: jnp.zeros((1, 2, 2, 1)), 8, "output")


def test_unevenly_spaced_positions_cannot_be_padded():
    with pytest.raises(ReceptiveFieldError, match="not evenly spaced"):
        receptive_field(lambda x: pool3(jnp.roll(x, 1, axis=1)), 8, "output")


@pytest.mark.parametrize("image_size", [0, (8,), (8, 8, 3), "8", 8.0])
def test_image_size_is_checked(image_size):
    with pytest.raises(ValueError, match="image_size must be a positive number"):
        receptive_field(pool3, image_size)


def test_weights_that_depend_on_the_image_are_refused():
    def model(x):
        return lax.conv_general_dilated(
            x,
            x[0, :3, :3, :, None],
            (1, 1),
            "SAME",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )

    with pytest.raises(ReceptiveFieldError, match="weights.*depend on the image"):
        receptive_field(model, 8, "output")


def test_indices_that_depend_on_the_image_are_refused_by_name():
    with pytest.raises(ReceptiveFieldError, match="operation 'gather'"):
        receptive_field(lambda x: x[:, x[0, :, 0, 0].astype(int)], 8, "output")


def test_a_cumulative_sum_is_infinite_along_its_axis():
    field = receptive_field(lambda x: jnp.cumsum(pool3(x), axis=1), 8)
    assert field.size == (math.inf, 3)
    assert str(field).startswith("output: infinite x 3 px")


def test_attention_sees_everything():
    def model(x):
        tokens = x.reshape(1, 64, 1, 3)
        return nn.dot_product_attention(tokens, tokens, tokens)

    assert receptive_field(model, 8, "output").size == (math.inf, math.inf)


def test_a_users_function_of_a_similar_name_is_traced():
    def model(x):
        offset = jnp.zeros((1, 8, 8, 18)) + x.mean()

        @jax.jit
        def deform_conv2d_mine(x):
            return deform_conv2d(x, offset, jnp.ones((3, 3, 3, 1)), padding=1)

        return deform_conv2d_mine(x)

    assert receptive_field(model, 8, ignore_global=True).size == (3, 3)


def test_a_models_name_is_refused():
    with pytest.raises(TypeError, match="create_model builds one"):
        receptive_field("resnet18", 32)  # type: ignore[arg-type]
