"""The configuration of a run: one frozen `Config`. Every recipe is an instance of it.

Each field is a flag of the same name: `learning_rate` is `--learning-rate`. Fields that
the programs treat specially are marked where they are defined: `_random` fields change
training images at random, `_resumable` fields may change when a run is resumed.
"""

import ast
import dataclasses
import math
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, Literal

import tyro

from train.console import program_name
from train.errors import UserError

__all__ = [
    "Augment",
    "Config",
    "Distillation",
    "Input",
    "Network",
    "Optimization",
    "Parallelism",
    "Policy",
    "Selection",
    "Transfer",
    "UnevenClasses",
    "Unlabelled",
    "may_change",
    "parse_fields",
    "random_changes",
    "unreached",
]

Policy = Literal[
    "none",
    "rand_augment",
    "trivial_augment",
    "auto_augment_imagenet",
    "auto_augment_cifar10",
    "auto_augment_svhn",
    "augmix",
    "noisy_student",
]


def _random(default: Any, is_on: Callable[[Any], bool] | None = None) -> Any:
    """A field that changes training images at random.

    Args:
      default: the value that leaves images unchanged.
      is_on: whether the field changes images, as a function of its group; by default,
        whether its value differs from the default.
    """
    return dataclasses.field(default=default, metadata={"random": is_on or True})


def _resumable(default: Any) -> Any:
    """A field that may change when a run is resumed."""
    return dataclasses.field(default=default, metadata={"resumable": True})


def _check(is_valid: bool, field: str, value: Any, allowed: str) -> None:
    if not is_valid:
        raise UserError(f"{_flag(field)} must be {allowed}, got {value}.")


def _flag(field: str) -> str:
    return "--" + field.replace("_", "-")


def parse_fields(words: list[str]) -> dict[str, Any]:
    """Parses words such as `width=16`: numbers, booleans, tuples or strings.

    Raises:
      ValueError: if a word is not of that form.
    """
    fields = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not (name and equals and value):
            raise ValueError(f"{word!r} is not of the form NAME=VALUE")
        try:
            fields[name] = ast.literal_eval(value)
        except (SyntaxError, ValueError):
            fields[name] = value
    return fields


_FIELDS = tyro.constructors.PrimitiveConstructorSpec(
    nargs="*",
    metavar="[NAME=VALUE ...]",
    instance_from_str=parse_fields,
    is_instance=lambda value: isinstance(value, Mapping),
    str_from_instance=lambda fields: [f"{k}={v}" for k, v in fields.items()],
)


@dataclasses.dataclass(frozen=True)
class Input:
    """The images, and how they are resized and normalised for the model."""

    data: str = "digits"
    """Data source: digits, tfds:NAME[@DIR], or folder, csv, npz or idx:PATH."""
    image_size: int = 224
    """Height and width of the model's input, in pixels."""
    train_size: int = 0
    """Height and width in training, in pixels; 0 for image_size."""
    load_size: int = _random(0, lambda input: input.load_size > input.trained_size)
    """Height and width of the training images that random windows are cut from; 0
    for the size in training."""
    batch_size: int = 64
    """Images per step, over all devices."""
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    """Subtracted from pixels in [0, 1]: one value, or one per channel."""
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    """Pixels are then divided by it: one value, or one per channel."""
    crop_pct: float = 1.0
    """Size of the central crop, as a share of the image's short side."""
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos"] = "bilinear"
    """How images are resized, with antialiasing."""
    crop_mode: Literal["center", "squash"] = "center"
    """center keeps an image's aspect ratio; squash makes it a square first."""
    max_bad_share: float = _resumable(0.01)
    """Largest share of unreadable images; the run stops when there are more."""
    threads: int = _resumable(0)
    """Threads that read images; 0 for one per core."""
    max_pixels: int = 0
    """Allow images of up to this many pixels, if that is more than Pillow's limit of
    178,956,970, above which an image is unreadable."""
    max_unpacked_bytes: int = 0
    """Allow the arrays of a compressed npz or idx file to have up to this many bytes,
    if that is more than 64 MiB and 32 times its size."""

    def __post_init__(self):
        _check(self.image_size > 0, "image_size", self.image_size, "at least 1")
        _check(self.train_size >= 0, "train_size", self.train_size, "at least 0")
        _check(
            self.load_size == 0 or self.load_size >= self.trained_size,
            "load_size",
            self.load_size,
            f"0 or at least the image size {self.trained_size}",
        )
        _check(self.batch_size > 0, "batch_size", self.batch_size, "at least 1")
        _check(len(self.mean) in (1, 3), "mean", self.mean, "one or three numbers")
        _check(len(self.std) in (1, 3), "std", self.std, "one or three numbers")
        _check(min(self.std) > 0, "std", self.std, "above 0")
        crop, bad = self.crop_pct, self.max_bad_share
        _check(0 < crop <= 1, "crop_pct", crop, "in (0, 1]")
        _check(0 <= bad <= 1, "max_bad_share", bad, "in [0, 1]")
        _check(self.threads >= 0, "threads", self.threads, "at least 0")
        _check(self.max_pixels >= 0, "max_pixels", self.max_pixels, "at least 0")
        most = self.max_unpacked_bytes
        _check(most >= 0, "max_unpacked_bytes", most, "at least 0")

    @property
    def trained_size(self) -> int:
        """Height and width of the model's input in training, in pixels."""
        return self.train_size or self.image_size


@dataclasses.dataclass(frozen=True)
class Selection:
    """The images to train and to evaluate on."""

    eval_split: Literal["val", "test"] = "test"
    """Split that the model is evaluated on."""
    val_share: float = 0.0
    """Share of each class's training images that is held out as the split val."""
    count: int = 0
    """Train on this many images, sampled from all of them; 0 for all."""
    share: float = 1.0
    """Train on this share of the images, sampled from all of them."""
    labels_per_class: int = 0
    """Train on this many images per class; 0 for all."""
    imbalance: float = 1.0
    """Make the training images long-tailed before others are left out: the first class
    keeps this many times as many as the last, those between fall exponentially. With
    labels_per_class, that is the number of the first class."""

    def __post_init__(self):
        val, share, labels = self.val_share, self.share, self.labels_per_class
        _check(
            1 <= self.imbalance < math.inf, "imbalance", self.imbalance, "at least 1"
        )
        _check(0 <= val < 1, "val_share", val, "in [0, 1)")
        _check(self.count >= 0, "count", self.count, "at least 0")
        _check(0 < share <= 1, "share", share, "in (0, 1]")
        _check(labels >= 0, "labels_per_class", labels, "at least 0")
        if (self.count > 0) + (share < 1) + (labels > 0) > 1:
            raise UserError("Give one of --count, --share and --labels-per-class.")


@dataclasses.dataclass(frozen=True)
class Network:
    """The model, and the weights that it starts from."""

    model: str = "resnet18"
    """One of cnn_flax.list_models()."""
    model_fields: Annotated[Mapping[str, Any], _FIELDS] = dataclasses.field(
        default_factory=dict
    )
    """Fields of the model, such as width=16 small_inputs=True."""
    init: str = ""
    """Weights to start from, except for the head: a file, a run, an id on the Hugging
    Face Hub, or the word published."""
    init_head: bool = False
    """Start the head from these weights as well; the classes must be the same."""
    dtype: Literal["float32", "bfloat16", "float64"] = "float32"
    """Compute dtype of the model; parameters are float32, or float64 with float64."""

    def __post_init__(self):
        for field in ("num_classes", "dtype"):
            if field in self.model_fields:
                raise UserError(
                    f"--model-fields cannot set {field}: it follows from "
                    f"{'--dtype' if field == 'dtype' else 'the data'}."
                )

    @property
    def init_source(self) -> str | None:
        """The source of `init` for `load_pretrained`: None for published weights."""
        return None if self.init == "published" else self.init


@dataclasses.dataclass(frozen=True)
class Augment:
    """Augmentation of training images, sampled per image, in this order."""

    crop_padding: int = _random(0)
    """Black pixels added around the image before a window of train_size is cut out."""
    crop_scale: float = _random(0.0)
    """Random resized crops: smallest area of a window, as a share of the image; 0 for
    none."""
    crop_at_decode: bool = False
    """Cut the windows of crop_scale from full photographs while they are decoded,
    antialiased, rather than on the device from images of load_size."""
    flip: float = _random(0.0)
    """Probability of a horizontal flip."""
    vertical_flip: float = _random(0.0)
    """Probability of a vertical flip."""
    policy: Policy = _random("none")
    """Policy that samples operations for each image."""
    operations: int = 2
    """With rand_augment and noisy_student: operations per image."""
    magnitude: int = 9
    """With rand_augment and noisy_student: magnitude of the operations, 0 to 30. The
    Noisy Student paper uses 27."""
    erase: float = _random(0.0)
    """Probability of filling a random box with the mean colour."""
    mixup: float = _random(0.0)
    """Blends pairs of images and labels, with weights from Beta(mixup, mixup); 0 for
    none. With cutmix, each batch uses one of the two."""
    cutmix: float = _random(0.0)
    """Pastes boxes between pairs, their areas from Beta(cutmix, cutmix); 0 for none."""
    mixed_labels: Literal["mean", "max"] = "mean"
    """The labels of mixed images with several classes each: the weighted mean, or all
    classes of both images."""

    def __post_init__(self):
        _check(self.crop_padding >= 0, "crop_padding", self.crop_padding, "at least 0")
        for field in ("crop_scale", "flip", "vertical_flip", "erase"):
            value = getattr(self, field)
            _check(0 <= value <= 1, field, value, "in [0, 1]")
        if self.crop_padding and self.crop_scale:
            raise UserError("Give one of --crop-padding and --crop-scale.")
        if self.crop_at_decode and not self.crop_scale:
            raise UserError("--crop-at-decode needs --crop-scale.")
        _check(self.operations > 0, "operations", self.operations, "at least 1")
        _check(0 <= self.magnitude <= 30, "magnitude", self.magnitude, "in [0, 30]")
        _check(self.mixup >= 0, "mixup", self.mixup, "at least 0")
        _check(self.cutmix >= 0, "cutmix", self.cutmix, "at least 0")

    @property
    def pairs(self) -> bool:
        """Whether images are mixed in pairs."""
        return self.mixup > 0 or self.cutmix > 0


@dataclasses.dataclass(frozen=True)
class Optimization:
    """The optimizer, its schedule, and regularization."""

    label_smoothing: float = 0.0
    """Share of each label that is spread uniformly over all classes."""
    optimizer: Literal["sgd", "adamw", "lamb"] = "sgd"
    """SGD with Nesterov momentum, AdamW, or LAMB."""
    learning_rate: float = 0.1
    """Peak learning rate, at the end of the warm-up."""
    warmup_epochs: float = 0.0
    """Epochs of linear warm-up before the schedule."""
    schedule: Literal["cosine", "step"] = "cosine"
    """Decay of the learning rate: a cosine to 0, or by a factor every few epochs."""
    step_epochs: float = 30.0
    """With --schedule step: epochs between two decays, counted from the start."""
    step_factor: float = 0.1
    """With --schedule step: factor of each decay."""
    momentum: float = 0.9
    """Decay of the gradients' running mean (beta 1 of AdamW and LAMB)."""
    weight_decay: float = 1e-4
    """Weight decay of kernels only. SGD adds it to the gradient; AdamW and LAMB
    decouple it."""
    clip_norm: float = 0.0
    """Clip the global gradient norm to this; 0 for no clipping."""
    gradient_accumulation: int = 1
    """Number of parts that each batch is split into to save memory; their gradients
    are averaged."""
    ema_decay: float = 0.0
    """Decay of an exponential moving average of weights and statistics, which is
    evaluated as well; 0 for none. It is min(ema_decay, (1 + step) / (10 + step))."""
    freeze_bn: bool = False
    """Freeze BatchNorm: use its running statistics in training, and do not update
    them."""
    precise_bn: Literal["auto", "always", "never"] = "auto"
    """Before each evaluation, replace BatchNorm's running statistics by those of the
    current weights on up to about 1,000 training images; auto does so in runs that are
    too short for running statistics: under 100 steps at a momentum of 0.9."""

    def __post_init__(self):
        smoothing, rate = self.label_smoothing, self.learning_rate
        _check(0 <= smoothing <= 1, "label_smoothing", smoothing, "in [0, 1]")
        _check(rate > 0, "learning_rate", rate, "above 0")
        _check(
            self.warmup_epochs >= 0, "warmup_epochs", self.warmup_epochs, "at least 0"
        )
        _check(0 <= self.momentum < 1, "momentum", self.momentum, "in [0, 1)")
        _check(self.weight_decay >= 0, "weight_decay", self.weight_decay, "at least 0")
        _check(self.step_epochs > 0, "step_epochs", self.step_epochs, "above 0")
        _check(0 < self.step_factor <= 1, "step_factor", self.step_factor, "in (0, 1]")
        _check(self.clip_norm >= 0, "clip_norm", self.clip_norm, "at least 0")
        parts = self.gradient_accumulation
        _check(parts >= 1, "gradient_accumulation", parts, "at least 1")
        _check(0 <= self.ema_decay < 1, "ema_decay", self.ema_decay, "in [0, 1)")


@dataclasses.dataclass(frozen=True)
class UnevenClasses:
    """Labelled images of which some classes have many more than others."""

    class_weights: Literal["none", "balanced"] = "none"
    """Multiply the loss of an image by its class's weight: with balanced inversely to
    the class's number of images, so that all classes count the same."""
    logit_adjustment: float = 0.0
    """Add this times the log of the classes' shares to the logits in training (tau of
    logit adjustment); 0 for none, and 1 for a model that predicts as if all classes
    were equally frequent."""
    balanced_sampling: bool = False
    """Draw as many training images of each class: those of rare classes repeatedly, a
    part of those of frequent ones. An epoch has as many images as without."""
    abc: bool = False
    """With --consistency fixmatch: predict with a second head on the same features,
    which learns from as many images of each class (auxiliary balanced classifier)."""

    def __post_init__(self):
        tau = self.logit_adjustment
        _check(0 <= tau < math.inf, "logit_adjustment", tau, "at least 0")
        weighs = self.class_weights != "none"
        if weighs + (tau > 0) + self.balanced_sampling > 1:
            raise UserError(
                "Give one of --class-weights, --logit-adjustment and "
                "--balanced-sampling: each alone makes up for uneven classes."
            )
        if self.abc and self.balanced_sampling:
            raise UserError(
                "--abc leaves out images of frequent classes, and --balanced-sampling "
                "draws them no more often than others: give one of them."
            )


@dataclasses.dataclass(frozen=True)
class Transfer:
    """Transfer learning from the weights that a run starts from."""

    transfer: Literal["fine_tune", "features", "lwf"] = "fine_tune"
    """What is trained: all parameters (fine_tune), the head alone on frozen features
    (features), or all parameters while the old head's logits are distilled (lwf,
    learning without forgetting)."""
    backbone_rate: float = 1.0
    """Learning rate of everything but the head, as a share of learning_rate."""
    layer_decay: float = 1.0
    """Learning rate of a stage, as a share of that of the next stage."""
    unfreeze_epochs: float = 0.0
    """Gradual unfreezing: epochs until the last stage is unfrozen, and again for each
    stage before it; 0 trains all stages from the start."""
    lwf_weight: float = 1.0
    """With lwf: weight of the distillation from the old logits."""
    lwf_temperature: float = 2.0
    """With lwf: temperature of that distillation."""

    def __post_init__(self):
        rate, decay = self.backbone_rate, self.layer_decay
        _check(0 < rate <= 1, "backbone_rate", rate, "in (0, 1]")
        _check(0 < decay <= 1, "layer_decay", decay, "in (0, 1]")
        epochs, weight = self.unfreeze_epochs, self.lwf_weight
        _check(epochs >= 0, "unfreeze_epochs", epochs, "at least 0")
        _check(weight >= 0, "lwf_weight", weight, "at least 0")
        temperature = self.lwf_temperature
        _check(temperature > 0, "lwf_temperature", temperature, "above 0")
        if self.transfer == "features" and (rate < 1 or decay < 1 or epochs):
            raise UserError(
                "With --transfer features the head alone learns: leave out "
                "--backbone-rate, --layer-decay and --unfreeze-epochs."
            )


@dataclasses.dataclass(frozen=True)
class Distillation:
    """Distillation from a teacher."""

    teacher: str = ""
    """Folder of a run, or a model with published weights, or MODEL=WEIGHTS."""
    distillation: Literal["kd", "dkd", "hint"] = "kd"
    """Learn the teacher's softened logits (kd), the same with the target class
    decoupled from the others (dkd), or, with the labels, its features (hint)."""
    temperature: float = 4.0
    """Divides the logits of teacher and student before the softmax."""
    logit_standardize: bool = False
    """With kd and dkd: give the logits of teacher and student mean 0 and deviation 1
    over the classes first, so that the student need not match the teacher's range."""
    alpha: float = 0.9
    """With kd: weight of the teacher's loss; that of the labels is 1 - alpha."""
    dkd_alpha: float = 1.0
    """With dkd: weight of the loss between the target class and all others."""
    dkd_beta: float = 8.0
    """With dkd: weight of the loss among the other classes."""
    hint_at: str = "stage3"
    """With hint: name of the features to compare."""
    hint_weight: float = 1.0
    """With hint: weight of the features' loss; that of the labels is 1."""
    cache_teacher: bool = False
    """Cache the teacher's logits on disk, one row per image; requires images without
    augmentation."""

    def __post_init__(self):
        temperature, alpha = self.temperature, self.alpha
        _check(temperature > 0, "temperature", temperature, "above 0")
        _check(0 <= alpha <= 1, "alpha", alpha, "in [0, 1]")
        for field in ("dkd_alpha", "dkd_beta", "hint_weight"):
            _check(getattr(self, field) >= 0, field, getattr(self, field), "at least 0")
        if self.cache_teacher and self.distillation == "hint":
            raise UserError("--cache-teacher caches logits, but a hint needs features.")


@dataclasses.dataclass(frozen=True)
class Unlabelled:
    """Images without labels, in addition to the labelled ones."""

    unlabelled: str = ""
    """Data source as for --data, or files:PATH (all files below a folder), or the word
    rest: the training images that --labels-per-class, --count or --share leave out; or
    with --pseudo-labels DIR, shards:PATTERN or shards:@FILE (see docs/scale.md)."""
    ratio: int = 1
    """Unlabelled images per labelled image in a step."""
    pseudo_labels: str = ""
    """Labels of the unlabelled images: a file from `python -m train pseudo-label`, or
    its folder of label shards."""
    pseudo_label_kind: Literal["soft", "hard"] = "soft"
    """Use a pseudo-label's probabilities (soft), or its most probable class (hard)."""
    min_confidence: float = 0.0
    """Leave out pseudo-labels whose confidence is not above this."""
    per_class: int = 0
    """Balance the pseudo-labelled images to this many per class: the most confident,
    or duplicates where there are fewer; 0 for no balancing."""
    consistency: Literal[
        "none",
        "pseudo_label",
        "fixmatch",
        "flexmatch",
        "softmatch",
        "freematch",
        "adamatch",
        "mixmatch",
    ] = "none"
    """How the model labels the unlabelled images in training: its own prediction for
    the image (pseudo_label); its prediction for a weakly augmented view as the label of
    a strongly augmented one (fixmatch), with one threshold per class (flexmatch), with
    a weight per image instead (softmatch), with thresholds per class that follow the
    model's confidence (freematch), or with a threshold and a class balance that follow
    the labelled images (adamatch). Or mix labelled and unlabelled images, with the mean
    prediction for two weak views as a label (mixmatch)."""
    threshold: float = 0.95
    """With --consistency, except softmatch, freematch and mixmatch: smallest confidence
    of a prediction that is learned from; with adamatch, relative to the labelled
    images' mean confidence, for which the paper has 0.9."""
    softmatch_momentum: float = 0.999
    """With softmatch: decay of the moving averages of the confidence's mean and
    variance and of the class probabilities."""
    softmatch_n_sigma: float = 2.0
    """With softmatch: divides the standard deviation of the weight's Gaussian. The
    paper's equation has 1, the authors' code 2."""
    freematch_momentum: float = 0.999
    """With freematch: decay of the moving averages of the confidence and of the class
    probabilities."""
    freematch_fairness: float = 0.01
    """With freematch: weight of the term that keeps the predicted classes balanced. The
    paper has 0.01 to 0.05."""
    adamatch_momentum: float = 0.999
    """With adamatch: decay of the moving averages of the class probabilities."""
    mixmatch_temperature: float = 0.5
    """With mixmatch: temperature that sharpens the predictions, above 0."""
    mixmatch_alpha: float = 0.75
    """With mixmatch: parameter of the Beta distribution of the mixtures."""
    unlabelled_weight: float = 1.0
    """Weight of the unlabelled images' loss; that of the labelled ones is 1. With
    mixmatch, whose loss is a squared error, the paper has 75 to 250."""
    ramp_up_epochs: float = 0.0
    """Epochs over which that weight ramps up from almost 0; with mixmatch linearly."""
    strong_operations: int = 2
    """With fixmatch and its variants: RandAugment operations in the strong view."""
    strong_magnitude: int = 10
    """With fixmatch and its variants: magnitude of these operations, 0 to 30."""
    strong_erase: float = 1.0
    """With fixmatch and its variants: probability of erasing a box in the strong
    view."""

    def __post_init__(self):
        _check(self.ratio >= 1, "ratio", self.ratio, "at least 1")
        for field in ("min_confidence", "threshold", "strong_erase"):
            value = getattr(self, field)
            _check(0 <= value <= 1, field, value, "in [0, 1]")
        for field in ("per_class", "unlabelled_weight", "ramp_up_epochs"):
            _check(getattr(self, field) >= 0, field, getattr(self, field), "at least 0")
        momentum, n_sigma = self.softmatch_momentum, self.softmatch_n_sigma
        _check(0 <= momentum < 1, "softmatch_momentum", momentum, "in [0, 1)")
        _check(n_sigma > 0, "softmatch_n_sigma", n_sigma, "above 0")
        momentum, fairness = self.freematch_momentum, self.freematch_fairness
        _check(0 <= momentum < 1, "freematch_momentum", momentum, "in [0, 1)")
        _check(fairness >= 0, "freematch_fairness", fairness, "at least 0")
        momentum = self.adamatch_momentum
        _check(0 <= momentum < 1, "adamatch_momentum", momentum, "in [0, 1)")
        for field in ("mixmatch_temperature", "mixmatch_alpha"):
            _check(getattr(self, field) > 0, field, getattr(self, field), "above 0")
        operations, magnitude = self.strong_operations, self.strong_magnitude
        _check(operations > 0, "strong_operations", operations, "at least 1")
        _check(0 <= magnitude <= 30, "strong_magnitude", magnitude, "in [0, 30]")
        for field in ("pseudo_labels", "consistency"):
            value = getattr(self, field)
            if value not in ("", "none") and not self.unlabelled:
                raise UserError(f"{_flag(field)} {value} needs --unlabelled SOURCE.")
        if self.unlabelled.startswith("shards:") and not self.pseudo_labels:
            raise UserError(
                f"--unlabelled {self.unlabelled} needs --pseudo-labels DIR: "
                f"`{program_name()} pseudo-label` writes it."
            )
        if self.pseudo_labels and self.consistency != "none":
            raise UserError("Give one of --pseudo-labels and --consistency.")
        if self.consistency == "adamatch" and self.ramp_up_epochs:
            raise UserError(
                "--consistency adamatch ramps its weight up over the first half of the "
                "run: leave out --ramp-up-epochs."
            )


@dataclasses.dataclass(frozen=True)
class Parallelism:
    """The devices, and how steps run on them."""

    parallel: Literal["jit", "pmap"] = _resumable("jit")
    """Run one jax.jit program over the sharded batch, or jax.pmap, which JAX keeps in
    maintenance only; the results are the same."""
    devices: int = _resumable(0)
    """Use this many of the machine's devices, the first ones; 0 for all."""
    mesh: str = _resumable("")
    """Axes of the devices, such as data=4,model=2: the batch is split over data; the
    kernels, with their momentum and moving average, over model. By default all data."""
    remat: Literal["none", "stage"] = _resumable("none")
    """Save what the backward pass needs (none), or with stage only what passes from
    stage to stage, and compute each stage again, which takes less memory and about a
    third more operations."""
    bn: Literal["global", "local"] = "global"
    """BatchNorm statistics over the global batch, or over each device's part of it
    (with pmap)."""
    deterministic: bool = False
    """On a GPU, allow only operations that give the same bits in every run, which takes
    longer; on a CPU they all do. Sets xla_gpu_deterministic_ops in XLA_FLAGS."""

    def __post_init__(self):
        _check(self.devices >= 0, "devices", self.devices, "at least 0")
        if self.devices not in (0, self.device_count):
            raise UserError(
                f"--mesh {self.mesh} has {self.device_count} devices, and --devices is "
                f"{self.devices}: leave out --devices."
            )
        if self.mesh and self.parallel == "pmap":
            raise UserError("--mesh needs --parallel jit: pmap splits the batch only.")
        if self.bn == "local" and self.parallel == "jit":
            raise UserError(
                "--bn local needs --parallel pmap: under jit the batch is global, "
                "whichever devices it is on."
            )

    @property
    def axes(self) -> dict[str, int]:
        """Devices along each axis of the mesh, `data` and `model`; empty by default."""
        if not self.mesh:
            return {}
        found = re.fullmatch(r"data=([1-9]\d*),model=([1-9]\d*)", self.mesh)
        if not found:
            raise UserError(
                f"--mesh is {self.mesh!r}, and must be such as data=4,model=2: the "
                "batch in 4 parts, each on 2 devices."
            )
        return {"data": int(found[1]), "model": int(found[2])}

    @property
    def device_count(self) -> int:
        """Number of devices to use, the first ones; 0 for all."""
        return math.prod(self.axes.values()) if self.mesh else self.devices


@dataclasses.dataclass(frozen=True)
class Config:
    """A run: the same config and seed on the same machine give the same numbers."""

    input: Input = Input()
    selection: Selection = Selection()
    network: Network = Network()
    augment: Augment = Augment()
    optimization: Optimization = Optimization()
    uneven_classes: UnevenClasses = UnevenClasses()
    transfer: Transfer = Transfer()
    distillation: Distillation = Distillation()
    unlabelled: Unlabelled = Unlabelled()
    parallelism: Parallelism = Parallelism()
    epochs: int = 10
    """Passes over the training images."""
    epoch_steps: int = 0
    """Steps per epoch; 0 for one pass over the labelled images. If set, there may be
    fewer labelled images than a batch holds."""
    seed: int = 0
    """Seed of the split, the initial weights, the order of the images and all random
    draws."""
    log_every: int = 50
    """Steps between two lines of metrics.jsonl; each epoch has one, however short."""
    checkpoint_every: int = 0
    """Steps between checkpoints, in addition to one after each epoch; 0 for none."""
    tensorboard: bool = _resumable(False)
    """Also write the metrics for TensorBoard, into the run's folder tensorboard."""

    def __post_init__(self):
        if self.augment.crop_at_decode and self.input.load_size:
            raise UserError("Give one of --crop-at-decode and --load-size.")
        _check(self.epochs > 0, "epochs", self.epochs, "at least 1")
        _check(self.epoch_steps >= 0, "epoch_steps", self.epoch_steps, "at least 0")
        teacher, unlabelled = self.distillation.teacher, self.unlabelled
        if self.distillation != Distillation() and not teacher:
            raise UserError("The flags of distillation need --teacher.")
        is_self_training = unlabelled.pseudo_labels or unlabelled.consistency != "none"
        if unlabelled.unlabelled and not (is_self_training or teacher):
            raise UserError(
                "--unlabelled needs labels for the images: --pseudo-labels FILE, "
                "--consistency or --teacher."
            )
        if is_self_training and teacher:
            raise UserError(
                "Give --teacher, or one of --pseudo-labels and --consistency."
            )
        if unlabelled.consistency in ("adamatch", "mixmatch") and self.augment.pairs:
            raise UserError(
                f"--consistency {unlabelled.consistency} makes the views of the "
                "labelled images itself: leave out --mixup and --cutmix."
            )
        if self.uneven_classes.abc:
            if unlabelled.consistency != "fixmatch":
                raise UserError("--abc needs --unlabelled and --consistency fixmatch.")
            if self.augment.pairs:
                raise UserError(
                    "--abc leaves images out by their class: leave out --mixup and "
                    "--cutmix."
                )
        is_lwf = self.transfer.transfer == "lwf"
        if is_lwf and (teacher or unlabelled.unlabelled):
            raise UserError(
                "--transfer lwf uses the starting weights as the teacher: leave out "
                "--teacher and --unlabelled."
            )
        if self.transfer != Transfer() and not self.network.init:
            raise UserError("The flags of transfer need --init WEIGHTS.")
        _check(0 <= self.seed < 2**32, "seed", self.seed, "in [0, 2 ** 32)")
        _check(self.log_every > 0, "log_every", self.log_every, "at least 1")
        _check(
            self.checkpoint_every >= 0,
            "checkpoint_every",
            self.checkpoint_every,
            "at least 0",
        )


def random_changes(config: Config) -> list[str]:
    """The flags by which this config changes training images at random."""
    flags = []
    for group, field in _all_fields(config):
        is_on = field.metadata.get("random", False)
        if is_on is True:
            is_on = getattr(group, field.name) != field.default
        elif is_on:
            is_on = is_on(group)
        if is_on:
            flags.append(_flag(field.name))
    return flags


def unreached(config: Config) -> list[str]:
    """One line for each flag whose period is longer than the run."""
    options, unlabelled = config.optimization, config.unlabelled
    epochs = f"--epochs {config.epochs}"
    lines = []
    if options.warmup_epochs >= config.epochs:
        lines.append(
            f"--warmup-epochs {options.warmup_epochs:g} is not shorter than {epochs}: "
            "the learning rate rises in every step and never falls."
        )
    if options.schedule == "step" and options.step_epochs >= config.epochs:
        lines.append(
            f"--step-epochs {options.step_epochs:g} is not shorter than {epochs}: the "
            "learning rate never falls."
        )
    if unlabelled.unlabelled and unlabelled.ramp_up_epochs > config.epochs:
        lines.append(
            f"--ramp-up-epochs {unlabelled.ramp_up_epochs:g} is longer than {epochs}: "
            "the loss of the unlabelled images never reaches --unlabelled-weight."
        )
    return lines


def may_change() -> set[str]:
    """Names of the fields that may change when a run is resumed."""
    fields = _all_fields(Config())
    return {field.name for _, field in fields if field.metadata.get("resumable")}


def _all_fields(group: Any) -> Iterator[tuple[Any, dataclasses.Field]]:
    """All fields of a config and its groups, each with the object that has it."""
    for field in dataclasses.fields(group):
        value = getattr(group, field.name)
        if dataclasses.is_dataclass(value):
            yield from _all_fields(value)
        else:
            yield group, field
