"""What is known about each model: `cnn_flax.model_info`."""

import dataclasses
from functools import cached_property, partial

import jax

from cnn_flax.analysis.depth import depth
from cnn_flax.published import PublishedWeights, published_weights
from cnn_flax.registry import create_model, registration

__all__ = ["ModelInfo", "model_info"]


@dataclasses.dataclass(frozen=True)
class ModelInfo:
    """What is known about a model.

    Attributes:
      name: its name in torchvision or timm.
      family: the file of `cnn_flax.models` that defines it.
      paper: authors, title, year and address.
      image_size: height and width that it is trained at, in pixels.
      weights: its published weights; `load_pretrained` takes the first by default.
    """

    name: str
    family: str
    paper: str
    image_size: int
    weights: tuple[PublishedWeights, ...]

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
        return depth(create_model(self.name), self.image_size)

    @property
    def mean(self) -> tuple[float, ...]:
        """What images in [0, 1] are normalised with, one value per channel.

        That of the first published weights, or ImageNet's; so are the others below.
        """
        return self.weights[0].mean if self.weights else (0.485, 0.456, 0.406)

    @property
    def std(self) -> tuple[float, ...]:
        """Standard deviation that they are then divided by, one value per channel."""
        return self.weights[0].std if self.weights else (0.229, 0.224, 0.225)

    @property
    def interpolation(self) -> str:
        """How images are resized before the central crop."""
        return self.weights[0].interpolation if self.weights else "bilinear"

    @property
    def crop_pct(self) -> float:
        """Side of the central crop as a share of the resized image's short side."""
        return self.weights[0].crop_pct if self.weights else 0.875


def model_info(name: str) -> ModelInfo:
    """What is known about a model.

    Raises:
      UnknownModelError: if there is no such model; names the nearest ones.

    Example:
      >>> info = cnn_flax.model_info("resnet18")
      >>> info.image_size, info.weights[0].source, info.weights[0].imagenet_top1
      (224, 'torchvision IMAGENET1K_V1', 69.758)
    """
    entry = registration(name)
    return ModelInfo(
        name, entry.family, entry.paper, entry.image_size, published_weights(name)
    )
