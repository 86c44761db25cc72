"""What a run is: one frozen `Config`. Every recipe is a value of it.

Each field is a flag of the same name: `learning_rate` is `--learning-rate`.
"""

import ast
import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import tyro

from train.errors import UserError

__all__ = [
    "Augment",
    "Config",
    "Devices",
    "Distillation",
    "Input",
    "Network",
    "MAY_CHANGE",
    "Optimization",
    "Policy",
    "Selection",
    "Transfer",
    "Unlabelled",
    "config_from_json",
    "config_to_json",
    "flat",
    "parse_fields",
]


# Fields in which a run may go on otherwise than it began; what may
# change the numbers is said.
MAY_CHANGE = ("devices", "max_bad_share", "parallel", "tensorboard", "threads")


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


def _check(held: bool, field: str, value: Any, allowed: str) -> None:
    if not held:
        raise UserError(f"{_flag(field)} must be {allowed}, got {value}.")


def _flag(field: str) -> str:
    return "--" + field.replace("_", "-")


def parse_fields(words: list[str]) -> dict[str, Any]:
    """Fields from words such as `width=16`: numbers, truths, tuples, or else words.

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
    """Images, and what becomes of them before the model sees them."""

    data: str = "digits"
    """Where the images come from: digits, folder:PATH, idx:PATH, npz:PATH or
    tfds:NAME[@DIR]."""
    image_size: int = 224
    """Height and width that the model sees, in pixels."""
    train_size: int = 0
    """The same in training; 0 for image_size."""
    load_size: int = 0
    """Those of the training images that windows are cut from; 0 for train_size."""
    batch_size: int = 64
    """Images a step, over all devices."""
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    """Subtracted from pixels in [0, 1]: one number, or one a channel."""
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    """Pixels are then divided by it: one number, or one a channel."""
    crop_pct: float = 1.0
    """Share of an image's short side that is kept, in the centre, when it is sized."""
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos"] = "bilinear"
    """How images are sized, with antialiasing."""
    max_bad_share: float = 0.01
    """Share of the images that may be unreadable; with more of them the run stops."""
    threads: int = 0
    """Threads that read images; 0 for one a core."""

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

    @property
    def trained_size(self) -> int:
        """Height and width that the model sees in training, in pixels."""
        return self.train_size or self.image_size


@dataclasses.dataclass(frozen=True)
class Selection:
    """Which of the images."""

    eval_split: Literal["val", "test"] = "test"
    """Images that the model is judged on."""
    val_share: float = 0.0
    """Share of each class's training images that becomes the split val."""
    count: int = 0
    """Train on so many images, drawn from all alike; 0 for all."""
    share: float = 1.0
    """Train on this share of the images, drawn from all alike."""
    labels_per_class: int = 0
    """Train on so many images of each class; 0 for all."""

    def __post_init__(self):
        val, share, labels = self.val_share, self.share, self.labels_per_class
        _check(0 <= val < 1, "val_share", val, "in [0, 1)")
        _check(self.count >= 0, "count", self.count, "at least 0")
        _check(0 < share <= 1, "share", share, "in (0, 1]")
        _check(labels >= 0, "labels_per_class", labels, "at least 0")
        if (self.count > 0) + (share < 1) + (labels > 0) > 1:
            raise UserError("Give one of --count, --share and --labels-per-class.")


@dataclasses.dataclass(frozen=True)
class Network:
    """The model."""

    model: str = "resnet18"
    """One of cnn_flax.list_models()."""
    model_fields: Annotated[Mapping[str, Any], _FIELDS] = dataclasses.field(
        default_factory=dict
    )
    """Fields of the model to set, such as width=16 small_inputs=True."""
    init: str = ""
    """Weights to begin from, but for the head: a file, a run, an id on the Hugging Face
    Hub, or the word published."""
    init_head: bool = False
    """Whether the head begins from them too; they have the same classes then."""
    dtype: Literal["float32", "bfloat16", "float64"] = "float32"
    """What the model computes in; its parameters are float32, or float64 with it."""

    def __post_init__(self):
        for field in ("num_classes", "dtype"):
            if field in self.model_fields:
                raise UserError(
                    f"--model-fields cannot set {field}: it follows from "
                    f"{'--dtype' if field == 'dtype' else 'the data'}."
                )


@dataclasses.dataclass(frozen=True)
class Augment:
    """Random changes to the training images, each image its own, in this order."""

    crop_padding: int = 0
    """Black pixels around the image before a window of train_size is cut out."""
    crop_scale: float = 0.0
    """Least share of the image in a window that is resized; 0 for no such windows."""
    crop_at_decode: bool = False
    """Whether the windows of crop_scale are cut from whole photographs as they are
    read, antialiased, and not on the device from images of load_size."""
    flip: float = 0.0
    """Probability of mirroring left and right."""
    vertical_flip: float = 0.0
    """Probability of mirroring up and down."""
    policy: Policy = "none"
    """What draws operations for each image."""
    operations: int = 2
    """With the policies rand_augment and noisy_student: operations an image."""
    magnitude: int = 9
    """With the policies rand_augment and noisy_student: their strength. The Noisy
    Student's paper has 27."""
    erase: float = 0.0
    """Probability of a box of mean colour in the image."""
    mixup: float = 0.0
    """Blends pairs of images and labels, with weights of Beta(mixup, mixup); 0 for
    none. With cutmix, one of the two for all of a batch."""
    cutmix: float = 0.0
    """Pastes boxes between pairs, their areas of Beta(cutmix, cutmix); 0 for none."""

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
    """The loss and the way down it."""

    label_smoothing: float = 0.0
    """Share of each label that is spread evenly over all classes."""
    optimizer: Literal["sgd", "adamw", "lamb"] = "sgd"
    """SGD with Nesterov's momentum, AdamW, or LAMB."""
    learning_rate: float = 0.1
    """The highest, at the end of the warm-up."""
    warmup_epochs: float = 0.0
    """Epochs over which the rate rises linearly, before the schedule."""
    schedule: Literal["cosine", "step"] = "cosine"
    """How the rate falls: as a cosine to 0, or by a factor every few epochs."""
    step_epochs: float = 30.0
    """With the schedule step: epochs from one fall to the next, from the start on."""
    step_factor: float = 0.1
    """With the schedule step: what the rate is multiplied with at each fall."""
    momentum: float = 0.9
    """Decay of the gradients' running mean (AdamW's and LAMB's beta 1)."""
    weight_decay: float = 1e-4
    """On kernels only. SGD adds it to the gradient, the others shrink the weights."""
    clip_norm: float = 0.0
    """Gradients of a larger norm, over all parameters, are scaled to it; 0 for none."""
    gradient_accumulation: int = 1
    """Parts that a batch is worked off in, one after the other, to save memory."""
    ema_decay: float = 0.0
    """Decay of a running mean of weights and statistics, evaluated beside them; 0 for
    none. It is (1 + step) / (10 + step) at first, while that is less."""
    freeze_bn: bool = False
    """Whether BatchNorm uses its running statistics in training too, and keeps them."""

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
class Transfer:
    """What becomes of the weights that a run begins from."""

    transfer: Literal["fine_tune", "features", "lwf"] = "fine_tune"
    """What learns: everything, or the head alone on features that stay as they are, or
    everything while the old head is held to its answers (learning without
    forgetting)."""
    backbone_rate: float = 1.0
    """Learning rate of all but the head, as a share of learning_rate."""
    layer_decay: float = 1.0
    """Learning rate of a stage, as a share of that of the stage after it."""
    unfreeze_epochs: float = 0.0
    """Epochs from the head's first step to the last stage's, and so on to the first's;
    0 lets all learn from the start."""
    lwf_weight: float = 1.0
    """With lwf: weight of the old answers beside the new labels."""
    lwf_temperature: float = 2.0
    """With lwf: temperature of the old answers."""

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
    """A teacher, whose answers the model learns from."""

    teacher: str = ""
    """Folder of a run, or a model with published weights, or MODEL=WEIGHTS."""
    distillation: Literal["kd", "dkd", "hint"] = "kd"
    """How: by its softened answers (Hinton), by these with target and others apart
    (decoupled), or by its features (hint), which come to the labels."""
    temperature: float = 4.0
    """Logits are divided by it before the softmax, the teacher's and the student's."""
    alpha: float = 0.9
    """With kd: the teacher's share of the loss; the labels have the rest."""
    dkd_alpha: float = 1.0
    """With dkd: weight of the target class against all others."""
    dkd_beta: float = 8.0
    """With dkd: weight of the other classes among themselves."""
    hint_at: str = "stage3"
    """With hint: the features that are compared, by name."""
    hint_weight: float = 1.0
    """With hint: their weight beside the labels."""
    cache_teacher: bool = False
    """Keep the teacher's answer to each image on disk, where no image is changed."""

    def __post_init__(self):
        temperature, alpha = self.temperature, self.alpha
        _check(temperature > 0, "temperature", temperature, "above 0")
        _check(0 <= alpha <= 1, "alpha", alpha, "in [0, 1]")
        for field in ("dkd_alpha", "dkd_beta", "hint_weight"):
            _check(getattr(self, field) >= 0, field, getattr(self, field), "at least 0")
        if self.cache_teacher and self.distillation == "hint":
            raise UserError("--cache-teacher keeps answers, and a hint needs features.")


@dataclasses.dataclass(frozen=True)
class Unlabelled:
    """Images without labels, beside the labelled ones."""

    unlabelled: str = ""
    """Where they come from: as for --data, or files:PATH, all files below a folder, or
    the word rest: the training images that --labels-per-class, --count or --share leave
    out."""
    ratio: int = 1
    """Of these, images a step for each labelled one."""
    pseudo_labels: str = ""
    """File that `python -m train pseudo-label` wrote for them."""
    pseudo_label_kind: Literal["soft", "hard"] = "soft"
    """Whether a pseudo-label is all probabilities, or the most probable class."""
    min_confidence: float = 0.0
    """Pseudo-labels are left out whose class is not more probable than this."""
    per_class: int = 0
    """Pseudo-labelled images of each class: the most confident, and duplicates where
    there are fewer; 0 for all as they are."""
    consistency: Literal["none", "pseudo_label", "fixmatch", "flexmatch"] = "none"
    """How the model labels them itself as it learns: by its answer to the image, or by
    its answer to a weak change of it, for a strong one (FixMatch), with a threshold
    for each class (FlexMatch)."""
    threshold: float = 0.95
    """With consistency: least probability of an answer that is learned from."""
    unlabelled_weight: float = 1.0
    """Weight of their loss beside that of the labelled images."""
    ramp_up_epochs: float = 0.0
    """Epochs over which that weight rises from almost 0."""
    strong_operations: int = 2
    """With FixMatch: operations of RandAugment in the strong change."""
    strong_magnitude: int = 10
    """With FixMatch: their strength."""
    strong_erase: float = 1.0
    """With FixMatch: probability of a box of mean colour in it."""

    def __post_init__(self):
        _check(self.ratio >= 1, "ratio", self.ratio, "at least 1")
        for field in ("min_confidence", "threshold", "strong_erase"):
            value = getattr(self, field)
            _check(0 <= value <= 1, field, value, "in [0, 1]")
        for field in ("per_class", "unlabelled_weight", "ramp_up_epochs"):
            _check(getattr(self, field) >= 0, field, getattr(self, field), "at least 0")
        operations, magnitude = self.strong_operations, self.strong_magnitude
        _check(operations > 0, "strong_operations", operations, "at least 1")
        _check(0 <= magnitude <= 30, "strong_magnitude", magnitude, "in [0, 30]")
        for field in ("pseudo_labels", "consistency"):
            value = getattr(self, field)
            if value not in ("", "none") and not self.unlabelled:
                raise UserError(f"{_flag(field)} {value} needs --unlabelled SOURCE.")
        if self.pseudo_labels and self.consistency != "none":
            raise UserError("Give one of --pseudo-labels and --consistency.")


@dataclasses.dataclass(frozen=True)
class Devices:
    """What the run is spread over."""

    parallel: Literal["jit", "pmap"] = "jit"
    """How: one program over the whole batch, or jax.pmap. The numbers are the same."""
    devices: int = 0
    """How many of the machine's devices to take, the first ones; 0 for all."""
    bn: Literal["global", "local"] = "global"
    """BatchNorm over the whole batch, or over each device's part of it (with pmap)."""

    def __post_init__(self):
        _check(self.devices >= 0, "devices", self.devices, "at least 0")
        if self.bn == "local" and self.parallel == "jit":
            raise UserError(
                "--bn local needs --parallel pmap: under jit the batch is whole, "
                "whatever devices it lies on."
            )


@dataclasses.dataclass(frozen=True)
class Config:
    """A run: the same config and seed on the same machine give the same numbers."""

    input: Input = Input()
    selection: Selection = Selection()
    network: Network = Network()
    augment: Augment = Augment()
    optimization: Optimization = Optimization()
    transfer: Transfer = Transfer()
    distillation: Distillation = Distillation()
    unlabelled: Unlabelled = Unlabelled()
    spread: Devices = Devices()
    epochs: int = 10
    """Passes over the training images."""
    epoch_steps: int = 0
    """Steps that count as an epoch; 0 for a pass over the labelled images. With it,
    these may be fewer than a batch."""
    seed: int = 0
    """Decides the split, the first weights, the order and every random change."""
    log_every: int = 50
    """Steps between two lines of metrics.jsonl."""
    checkpoint_every: int = 0
    """Steps between checkpoints, beside the one after each epoch; 0 for none."""
    tensorboard: bool = False
    """Write the metrics for TensorBoard too, into the run's folder tensorboard."""

    def __post_init__(self):
        if self.augment.crop_at_decode and self.input.load_size:
            raise UserError("Give one of --crop-at-decode and --load-size.")
        _check(self.epochs > 0, "epochs", self.epochs, "at least 1")
        _check(self.epoch_steps >= 0, "epoch_steps", self.epoch_steps, "at least 0")
        teacher, unlabelled = self.distillation.teacher, self.unlabelled
        if self.distillation != Distillation() and not teacher:
            raise UserError("The flags of distillation need --teacher.")
        learns = unlabelled.pseudo_labels or unlabelled.consistency != "none"
        if unlabelled.unlabelled and not (learns or teacher):
            raise UserError(
                "--unlabelled needs what labels the images: --pseudo-labels FILE, "
                "--consistency or --teacher."
            )
        if learns and teacher:
            raise UserError(
                "Give --teacher, or one of --pseudo-labels and --consistency."
            )
        keeps_old = self.transfer.transfer == "lwf"
        if keeps_old and (teacher or unlabelled.unlabelled):
            raise UserError(
                "--transfer lwf is its own teacher: leave out --teacher and "
                "--unlabelled."
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


def config_to_json(config: Config) -> dict[str, Any]:
    """The config as JSON holds it: a dictionary a group, lists for tuples."""
    return _jsonable(dataclasses.asdict(config))


def config_from_json(tree: Mapping[str, Any], cls: type = Config) -> Any:
    """The way back. What an older version did not write takes its default.

    Raises:
      UserError: if there is a field that `cls` does not have.
    """
    types = {f.name: f.type for f in dataclasses.fields(cls)}
    fields = {}
    for name, value in tree.items():
        if name not in types:
            raise UserError(f"The run has a field {name!r} that this version has not.")
        if dataclasses.is_dataclass(types[name]):
            value = config_from_json(value, type(getattr(cls, name)))
        fields[name] = tuple(value) if isinstance(value, list) else value
    return cls(**fields)


def flat(config: Config) -> dict[str, Any]:
    """Each flag's name, without its dashes, and its value."""
    values = {}
    for group in config_to_json(config).items():
        values |= group[1] if isinstance(group[1], dict) else dict([group])
    return values


def _jsonable(tree: Any) -> Any:
    if isinstance(tree, Mapping):
        return {key: _jsonable(value) for key, value in tree.items()}
    return [_jsonable(v) for v in tree] if isinstance(tree, tuple | list) else tree
