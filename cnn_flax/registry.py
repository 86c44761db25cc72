"""The models by name: registering, listing and building them."""

import dataclasses
import difflib
import fnmatch
import importlib
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from flax import linen as nn

__all__ = [
    "IMAGE_SIZE",
    "Registration",
    "UnknownModelError",
    "create_model",
    "list_models",
    "nearest",
    "register",
    "registration",
]

# Height and width that most models are trained at, in pixels.
IMAGE_SIZE = 224

Factory: TypeAlias = "Callable[..., nn.Module]"


class UnknownModelError(ValueError):
    """No model has that name."""


@dataclasses.dataclass(frozen=True)
class Registration:
    """What `register` records about a model.

    Attributes:
      factory: builds the module from its fields.
      paper: authors, title, year and address.
      image_size: height and width that it is trained at, in pixels.
    """

    factory: Factory
    paper: str
    image_size: int

    @property
    def family(self) -> str:
        """Name of the file that defines the model, without its ending."""
        return self.factory.__module__.rpartition(".")[2]


_REGISTRY: dict[str, Registration] = {}


def _registry() -> dict[str, Registration]:
    """What is registered, with the models of this package."""
    importlib.import_module("cnn_flax.models")
    return _REGISTRY


def register(
    *, paper: str, image_size: int = IMAGE_SIZE
) -> Callable[[Factory], Factory]:
    """Registers a factory under its own name.

    The rest of the library relies on few conventions. The factory's module has the
    field `num_classes`, and 0 leaves the head out. Its logits come from the layer
    "head". A module with auxiliary heads has the field `aux_logits`, and False leaves
    them out. `load_pretrained` and `cnn-flax convert` then work with files of our own
    format; torch's names need a file in `cnn_flax.weights.dialects` as well.

    Args:
      paper: authors, title, year and address of the paper that the model is from.
      image_size: height and width that it is trained at, in pixels.

    Returns:
      The decorator, which returns the factory unchanged.

    Raises:
      ValueError: if the name is taken.
    """

    def add(factory: Factory) -> Factory:
        name = factory.__name__
        if name in _registry():
            raise ValueError(f"There is a model {name!r} already.")
        _REGISTRY[name] = Registration(factory, paper, image_size)
        return factory

    return add


def list_models(pattern: str = "*") -> list[str]:
    """Sorted names of the models that match a shell pattern, such as "resnet*".

    Example:
      >>> cnn_flax.list_models("densenet*")
      ['densenet121', 'densenet161', 'densenet169', 'densenet201']
    """
    return sorted(fnmatch.filter(_registry(), pattern))


def create_model(
    name: str,
    *,
    features_only: bool = False,
    out_stages: Sequence[str | int] | None = None,
    **fields: Any,
) -> "nn.Module":
    """Builds a model.

    Args:
      name: one of `list_models()`.
      features_only: whether to build a backbone for detection or segmentation: a
        `Backbone`, which returns maps instead of logits.
      out_stages: names or numbers of the maps of a backbone, such as `(2, 3, 4)` or
        `("stem", "stage4")`; None: the last stage of each stride.
        `cnn_flax.feature_info(backbone)` gives their channels, strides and fields.
      **fields: fields of the module to set, such as `num_classes=10` or
        `dtype=jnp.bfloat16`. `num_classes=0` gives pooled features. `output_stride`
        of 8 or 16 replaces the last strides by dilation.

    Returns:
      A `flax.linen.Module`: `model.init(key, images)` and
      `model.apply(variables, images)` with images float `[N, H, W, C]` give logits
      `[N, num_classes]`, or with `features_only` a dictionary of maps by name.

    Raises:
      UnknownModelError: if there is no such model; names the nearest ones.
      TypeError: if the model has no such field; names the nearest ones. `pretrained`
        is none either: `cnn_flax.load_pretrained(name)` gives a model with weights.
      ValueError: if a stage is given twice, or the model cannot replace its strides.

    Example:
      >>> model = cnn_flax.create_model("resnet18", num_classes=10)
      >>> images = jnp.zeros((2, 32, 32, 3))
      >>> logits, _ = jax.eval_shape(model.init_with_output, jax.random.key(0), images)
      >>> logits.shape
      (2, 10)
    """
    factory = registration(name).factory
    allowed = [f.name for f in dataclasses.fields(type(factory())) if f.init]
    allowed = [f for f in allowed if f not in ("parent", "name")]
    if "output_stride" in fields and "output_stride" not in allowed:
        if fields["output_stride"] != 32:
            families = {r.family for r in _REGISTRY.values() if _can_dilate(r)}
            raise ValueError(
                f"{name} has no dilation to replace its strides: output_stride is 32, "
                f"got {fields['output_stride']!r}. The models of "
                f"{', '.join(sorted(families))} take 8 and 16."
            )
        fields = {k: v for k, v in fields.items() if k != "output_stride"}
    if out_stages is not None and not features_only:
        raise TypeError("out_stages are for features_only=True.")
    if features_only:
        if fields.get("num_classes"):
            raise TypeError(
                f"A backbone has no head: leave out num_classes="
                f"{fields['num_classes']!r} or features_only."
            )
        fields = {**fields, "num_classes": 0}
    for field in fields:
        if field in ("pretrained", "weights"):
            raise TypeError(
                f"create_model builds a module, which has no weights: leave out "
                f"{field}={fields[field]!r}. For published weights, call "
                f"`model, variables = cnn_flax.load_pretrained({name!r})`; for others, "
                "add their file, folder or id on the Hugging Face Hub."
            )
        if field not in allowed:
            raise TypeError(
                f"{name} has no field {field!r}. {nearest(field, allowed)} "
                f"It has: {', '.join(allowed)}."
            )
    model = factory(**fields)
    if not features_only:
        return model
    from cnn_flax.backbone import backbone_of  # Linen is imported with a model.

    return backbone_of(model, out_stages)


def _can_dilate(model: Registration) -> bool:
    return hasattr(model.factory(), "output_stride")


def registration(name: str) -> Registration:
    """What was registered under a name.

    Raises:
      UnknownModelError: if there is no such model; names the nearest ones.
    """
    if not isinstance(name, str) or name not in _registry():
        raise UnknownModelError(
            f"There is no model {name!r}. {nearest(str(name), list_models())} "
            "cnn_flax.list_models() names all of them."
        )
    return _REGISTRY[name]


def nearest(word: str, choices: Iterable[str]) -> str:
    """A sentence with the up to three choices nearest to `word`, or an empty string."""
    by_lower = {choice.lower(): choice for choice in choices}
    close = difflib.get_close_matches(word.lower(), by_lower, n=3, cutoff=0.6)
    # "resnet" is spelled far from "resnet152", but may be the beginning of it.
    close += [k for k in by_lower if k.startswith(word.lower()) and k not in close]
    return f"Nearest: {', '.join(by_lower[k] for k in close[:3])}." if close else ""
