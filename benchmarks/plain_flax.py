"""A model's twin of plain Flax layers: same parameters, same numbers up to rounding."""

import contextlib
from collections.abc import Iterator
from typing import Any
from unittest import mock

from flax import linen as nn

from cnn_flax.layers import BatchNorm, Conv

__all__ = ["plain_flax"]


@contextlib.contextmanager
def plain_flax() -> Iterator[None]:
    """Models that are called in this context, or traced, are made of Flax's layers.

    Convolution, BatchNorm and max pooling are; deformable convolution, which Flax does
    not have, stays ours. Initialization is ours too.
    """
    with (
        nn.intercept_methods(_plainly),
        mock.patch("cnn_flax.layers.pooling.dispatch", lambda plain, *others: plain),
    ):
        yield


def _plainly(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
    module = context.module
    if context.method_name != "__call__" or module.is_initializing():
        return call(*args, **kwargs)
    if type(module) is Conv:
        plain = _twin(nn.Conv, module)
        return plain.apply({"params": module.variables["params"]}, *args)
    if type(module) is BatchNorm:
        plain = _twin(nn.BatchNorm, module)
        mutable = ["batch_stats"] if module.is_mutable_collection("batch_stats") else []
        y, new = plain.apply(module.variables, *args, mutable=mutable, **kwargs)
        for name, statistics in new.get("batch_stats", {}).items():
            module.put_variable("batch_stats", name, statistics)
        return y
    return call(*args, **kwargs)


def _twin(layer: Any, module: nn.Module) -> Any:
    """Flax's layer with the fields of ours, which have the same names."""
    names = set(layer.__dataclass_fields__) & set(type(module).__dataclass_fields__)
    fields = {name: getattr(module, name) for name in names - {"parent", "name"}}
    return layer(**fields, parent=None)
