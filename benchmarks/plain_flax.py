"""Our models with Flax's layers: same parameters, same outputs up to rounding."""

import contextlib
from collections.abc import Iterator
from typing import Any
from unittest import mock

from flax import linen as nn

from cnn_flax.layers import BatchNorm, Conv

__all__ = ["plain_flax"]


@contextlib.contextmanager
def plain_flax() -> Iterator[None]:
    """Context in which models, when called or traced, use Flax's layers.

    This replaces convolution, BatchNorm and max pooling. Deformable convolution, which
    Flax lacks, and initialization stay ours.
    """
    with (
        nn.intercept_methods(_call_flax),
        mock.patch("cnn_flax.layers.pooling.dispatch", lambda plain, *others: plain),
    ):
        yield


def _call_flax(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
    module = context.module
    if context.method_name != "__call__" or module.is_initializing():
        return call(*args, **kwargs)
    if type(module) is Conv:
        plain = _flax_layer(nn.Conv, module)
        return plain.apply({"params": module.variables["params"]}, *args)
    if type(module) is BatchNorm:
        plain = _flax_layer(nn.BatchNorm, module)
        mutable = ["batch_stats"] if module.is_mutable_collection("batch_stats") else []
        y, new = plain.apply(module.variables, *args, mutable=mutable, **kwargs)
        for name, statistics in new.get("batch_stats", {}).items():
            module.put_variable("batch_stats", name, statistics)
        return y
    return call(*args, **kwargs)


def _flax_layer(layer: Any, module: nn.Module) -> Any:
    """Flax's layer with the fields of ours that have the same name."""
    names = set(layer.__dataclass_fields__) & set(type(module).__dataclass_fields__)
    fields = {name: getattr(module, name) for name in names - {"parent", "name"}}
    return layer(**fields, parent=None)
