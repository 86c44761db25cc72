"""The models by name: what there is, how to build it, what is known of it."""

import dataclasses
import difflib
import fnmatch
from collections.abc import Callable, Iterable
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import jax
from flax import linen as nn

if TYPE_CHECKING:
    from cnn_flax.weights import PublishedWeights

__all__ = [
    "ModelInfo",
    "UnknownModelError",
    "create_model",
    "list_models",
    "model_info",
    "nearest",
    "register",
]

Factory = Callable[..., nn.Module]


class UnknownModelError(ValueError):
    """No model has that name."""


@dataclasses.dataclass(frozen=True)
class ModelInfo:
    """What is known of a model.

    Attributes:
      name: torchvision's or timm's name of it.
      family: the file of `cnn_flax.models` that holds it.
      paper: authors, title, year and address.
      image_size: height and width that it is trained at, in pixels.
      weights: the published weights, the first being what `load_pretrained` takes.
    """

    name: str
    family: str
    paper: str
    image_size: int
    weights: tuple["PublishedWeights", ...]

    @cached_property
    def parameters(self) -> int:
        """Number of trainable scalars with 1,000 classes and three input channels."""
        images = jax.ShapeDtypeStruct((1, self.image_size, self.image_size, 3), "f4")
        init = partial(create_model(self.name).init, jax.random.key(0))
        params = jax.eval_shape(init, images)["params"]
        return sum(leaf.size for leaf in jax.tree.leaves(params))

    @cached_property
    def depth(self) -> int:
        """Weighted layers as the papers count them: `cnn_flax.analysis.depth`."""
        # The analysis needs the layers, and the layers this module.
        from cnn_flax.analysis import depth

        return depth(create_model(self.name), self.image_size)

    @property
    def mean(self) -> tuple[float, ...]:
        """Mean a channel that images in [0, 1] are normalised with: ImageNet's."""
        return self.weights[0].mean if self.weights else (0.485, 0.456, 0.406)

    @property
    def std(self) -> tuple[float, ...]:
        """Standard deviation a channel, likewise."""
        return self.weights[0].std if self.weights else (0.229, 0.224, 0.225)

    @property
    def interpolation(self) -> str:
        """How images are resized before the central crop."""
        return self.weights[0].interpolation if self.weights else "bilinear"

    @property
    def crop_pct(self) -> float:
        """Share of the resized image's short side that the central crop keeps."""
        return self.weights[0].crop_pct if self.weights else 0.875


@dataclasses.dataclass(frozen=True)
class _Entry:
    factory: Factory
    paper: str
    image_size: int


_REGISTRY: dict[str, _Entry] = {}


def register(*, paper: str, image_size: int = 224) -> Callable[[Factory], Factory]:
    """Registers a factory under its own name.

    Args:
      paper: authors, title, year and address of the paper that the model is from.
      image_size: height and width that it is trained at, in pixels.

    Returns:
      The decorator; it returns the factory as it is.

    Raises:
      ValueError: if the name is taken.
    """

    def add(factory: Factory) -> Factory:
        name = factory.__name__
        if name in _REGISTRY:
            raise ValueError(f"There is a model {name!r} already.")
        _REGISTRY[name] = _Entry(factory, paper, image_size)
        return factory

    return add


def list_models(pattern: str = "*") -> list[str]:
    """Sorted names of the models that match a shell pattern, such as "resnet*"."""
    return sorted(fnmatch.filter(_REGISTRY, pattern))


def create_model(name: str, **fields: Any) -> nn.Module:
    """Builds a model.

    Args:
      name: one of `list_models()`.
      **fields: fields of the module to set, such as `num_classes=10` or
        `dtype=jnp.bfloat16`. `num_classes=0` gives pooled features.

    Returns:
      A `flax.linen.Module`: `model.init(key, images)` and
      `model.apply(variables, images)` with images float `[N, H, W, C]` give logits
      `[N, num_classes]`.

    Raises:
      UnknownModelError: if there is no such model; names the nearest ones.
      TypeError: if the model has no such field; names the nearest ones.
    """
    factory = _entry(name).factory
    known = [f.name for f in dataclasses.fields(type(factory())) if f.init]
    known = [f for f in known if f not in ("parent", "name")]
    for field in fields:
        if field not in known:
            raise TypeError(
                f"{name} has no field {field!r}. {nearest(field, known)} "
                f"It has: {', '.join(known)}."
            )
    return factory(**fields)


def model_info(name: str) -> ModelInfo:
    """What is known of a model.

    Raises:
      UnknownModelError: if there is no such model; names the nearest ones.
    """
    # Reading the weights' list needs this module; it is not needed to build a model.
    from cnn_flax.weights import published_weights

    entry = _entry(name)
    family = entry.factory.__module__.rpartition(".")[2]
    return ModelInfo(
        name, family, entry.paper, entry.image_size, published_weights(name)
    )


def nearest(word: str, known: Iterable[str]) -> str:
    """A sentence that names the known words nearest to `word`, or an empty one."""
    by_lower = {k.lower(): k for k in known}
    close = difflib.get_close_matches(word.lower(), by_lower, n=3, cutoff=0.6)
    # "resnet" is far from "resnet152" by its letters, but it is what was begun.
    close += [k for k in by_lower if k.startswith(word.lower()) and k not in close]
    return f"Nearest: {', '.join(by_lower[k] for k in close[:3])}." if close else ""


def _entry(name: str) -> _Entry:
    if name not in _REGISTRY:
        raise UnknownModelError(
            f"There is no model {name!r}. {nearest(name, list_models())} "
            "cnn_flax.list_models() names all of them."
        )
    return _REGISTRY[name]
