import re

import pytest

import cnn_flax
from cnn_flax.weights import WeightsError
from cnn_flax.weights.dialects import Dialect, Rule, dialects, rule_of
from cnn_flax.weights.dialects.base import _FAMILIES


def entry(path, name="resnet50"):
    return rule_of(dialects(name)[0], path)[0]


def test_names_of_parameters_are_torchvisions():
    assert entry("conv1/conv/kernel") == "conv1.weight"
    assert entry("conv1/bn/scale") == "bn1.weight"
    assert entry("conv1/bn/bias") == "bn1.bias"
    assert entry("stage3_block23/conv2/conv/kernel") == "layer3.22.conv2.weight"
    assert entry("stage3_block10/conv3/bn/mean") == "layer3.9.bn3.running_mean"
    assert entry("stage1_block1/conv1/bn/var") == "layer1.0.bn1.running_var"
    assert entry("stage4_block1/shortcut/conv/kernel") == "layer4.0.downsample.0.weight"
    assert entry("stage4_block1/shortcut/bn/scale") == "layer4.0.downsample.1.weight"
    assert entry("head/bias") == "fc.bias"


def test_names_of_the_d_variants_are_timms():
    name = "resnet101d"
    assert entry("conv1/conv1/conv/kernel", name) == "conv1.0.weight"
    assert entry("conv1/conv2/bn/scale", name) == "conv1.4.weight"
    assert entry("conv1/conv3/bn/var", name) == "bn1.running_var"
    path = "stage2_block1/shortcut/conv/kernel"
    assert entry(path, name) == "layer2.0.downsample.1.weight"


def test_each_model_is_of_one_family():
    for name in cnn_flax.list_models():
        assert dialects(name)
        assert sum(bool(re.fullmatch(pattern, name)) for pattern in _FAMILIES) == 1


def test_a_number_in_a_template_may_have_an_offset():
    dialect = Dialect((Rule(r"stage(\d+)/unit(\d+)", "f.{1+3}.{2-1}.{2}"),))
    assert rule_of(dialect, "stage7/unit10/kernel")[0] == "f.10.9.10.weight"


def test_the_first_rule_that_fits_counts():
    dialect = Dialect((Rule("conv1", "a"), Rule(r"conv\d", "b")))
    assert rule_of(dialect, "conv1/kernel")[0] == "a.weight"
    assert rule_of(dialect, "conv2/kernel")[0] == "b.weight"


def test_unknown_parameters_and_models_are_named():
    with pytest.raises(WeightsError, match="parameter 'stage1/conv9/kernel'"):
        entry("stage1/conv9/kernel")
    with pytest.raises(WeightsError, match="model 'resnet50_of_mine'"):
        dialects("resnet50_of_mine")


@pytest.mark.parametrize("name", ["resnet18", "resnet18d", "lab_resnet34"])
def test_rules_are_regular_expressions_over_modules(name):
    for dialect in dialects(name):
        for rule in dialect.rules:
            groups = re.compile(rule.path).groups
            used = {int(n) for n in re.findall(r"\{(\d)", rule.torch)}
            assert used == set(range(1, groups + 1))
