"""Backbones: a network's maps in the place of its logits, for dense prediction."""

from collections.abc import Sequence
from typing import Any

import jax
from flax import linen as nn

__all__ = ["Backbone", "backbone_of"]


class Backbone(nn.Module):
    """A network that ends at the last wanted map and returns the wanted ones.

    Its variables are those of the network, under the same names, without those of
    layers after the last wanted map. `create_model(name, features_only=True)` makes
    one, and `load_pretrained(name, features_only=True)` fills it.

    Attributes:
      body: the network, which sows its maps into "intermediates".
      out_stages: names of the wanted maps.
    """

    body: nn.Module
    out_stages: tuple[str, ...]

    def setup(self):
        """Puts the body's variables among the backbone's own."""
        nn.share_scope(self, self.body)

    def __call__(self, images: jax.Array, **arguments: Any) -> dict[str, jax.Array]:
        """Float `[N, H, W, C]` to maps `[N, H', W', C']` by the name of their stage.

        Arguments are those of the network's call, such as `train=True`.

        Raises:
          ValueError: if the network has no such map.
        """
        maps: dict[str, jax.Array] = {}
        passed = []

        def sow(collection, name, value, **rest):
            if collection != "intermediates":
                return nn.Module.sow(self.body, collection, name, value, **rest)
            passed.append(name)
            if name not in self.out_stages:
                return False
            maps[name] = value
            self.sow(collection, name, value)
            if len(maps) == len(self.out_stages):
                raise _LastMap
            return True

        # Only the module that is bound for this call.
        object.__setattr__(self.body, "sow", sow)
        try:
            self.body(images, **arguments)
        except _LastMap:
            return {name: maps[name] for name in self.out_stages}
        missing = [name for name in self.out_stages if name not in maps]
        raise ValueError(
            f"{type(self.body).__name__} has no map {missing[0]!r}. It has: "
            f"{', '.join(passed)}."
        )


class _LastMap(Exception):
    """All wanted maps are there."""


def backbone_of(
    model: nn.Module, out_stages: Sequence[str | int] | None = None
) -> Backbone:
    """A backbone of a network without a head.

    Args:
      model: the network, with `num_classes=0`.
      out_stages: names of the maps, such as "stage3" or "stem", or numbers of stages;
        None: the last stage of each stride, a network's field `pyramid` if it has one,
        and all stages otherwise.

    Raises:
      ValueError: if there are no stages, or one is given twice.
      TypeError: if one is neither a name nor a number.
    """
    if out_stages is None:
        stages = range(1, len(getattr(model, "stage_sizes", ())) + 1)
        out_stages = getattr(model, "pyramid", tuple(stages))
    wanted: Any = (out_stages,) if isinstance(out_stages, str | int) else out_stages
    for stage in wanted:
        if not isinstance(stage, str | int) or isinstance(stage, bool):
            raise TypeError(
                'out_stages are names such as "stage3" or numbers such as 3, got '
                f"{stage!r}."
            )
    names = tuple(s if isinstance(s, str) else f"stage{s}" for s in wanted)
    if not names or len(set(names)) < len(names):
        raise ValueError(
            f"out_stages must be one or more different stages, got {names}; "
            "cnn_flax.feature_info(model) lists what a model has."
        )
    return Backbone(model, names)
