"""Which of our models are timm's, and how timm names their parameters."""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from flax import linen as nn

from cnn_flax.registry import create_model
from cnn_flax.weights.dialects import Dialect, find_dialects, rule_of

__all__ = ["TimmForm", "timm_form"]

# From the models that timm 1.0.31 has, with our names of parameters under one of our
# dialects, to timm's names of the first convolution and of the head. timm's ResNets
# with three convolutions in the stem have the second names.
_NETS = {
    r"densenet(121|161|169|201)": ("features.conv0", "classifier"),
    r"(tf_)?efficientnet_\w+": ("conv_stem", "classifier"),
    r"legacy_se(net|resnet|resnext)\w+": ("layer0.conv1", "last_linear"),
    r"(se)?resnet(18|34|50|101|152)": ("conv1", "fc"),
    r"(se)?resnext(50|101)_32x[48]d": ("conv1", "fc"),
    r"wide_resnet(50|101)_2": ("conv1", "fc"),
    r"resnet(18|34|50|101|152)d": ("conv1.0", "fc"),
    r"vgg(11|13|16|19)(_bn)?": ("features.0", "head.fc"),
}
# What timm computes otherwise than our defaults, which are torchvision's.
_FIELDS = {r"efficientnet_b[0-7]": {"bn_epsilon": 1e-5}}
# Fields that change nothing in evaluation, or are in the form by themselves.
_IGNORED = (
    *("num_classes", "dtype", "dropout_rate", "drop_path_rate", "bn_momentum"),
    *("bn_axis_name", "parent", "name"),
)


class TimmForm(NamedTuple):
    """What timm calls a net's parts.

    Attributes:
      dialect: its names of the parameters.
      first_conv: its name of the convolution that takes the images.
      classifier: its name of the head.
    """

    dialect: Dialect
    first_conv: str
    classifier: str


def timm_form(name: str, fields: Mapping[str, Any]) -> TimmForm | None:
    """The form of a model in timm; None if timm has no net that computes the same.

    Args:
      name: the model's.
      fields: fields that it is created with.
    """
    named = [names for nets, names in _NETS.items() if re.fullmatch(nets, name)]
    if not named:
        return None
    first_conv, classifier = named[0]
    theirs: dict[str, Any] = {}
    for pattern, differing in _FIELDS.items():
        if re.fullmatch(pattern, name):
            theirs = differing
    if _of(create_model(name, **fields)) != _of(create_model(name, **theirs)):
        return None
    for dialect in find_dialects(name):
        head, _ = rule_of(dialect, f"{dialect.head}/kernel")
        if (
            head == f"{classifier}.weight"
            and f"{first_conv}.weight" in dialect.stem_kernels
        ):
            return TimmForm(dialect, first_conv, classifier)
    return None


def _of(model: nn.Module) -> dict[str, Any]:
    return {
        field.name: getattr(model, field.name)
        for field in dataclasses.fields(model)
        if field.name not in _IGNORED
    }
