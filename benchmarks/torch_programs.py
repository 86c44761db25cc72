"""Programs of torch and torchvision, for worker processes.

No other module imports torch.
"""

# Linters run without the extra that has torch.
# pyright: reportMissingImports=false

import os
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
import torchvision
from torch import nn
from torch.nn import functional
from torchvision.models import resnet
from torchvision.transforms import v2

from benchmarks.worker_process import Program

__all__ = [
    "MODELS",
    "augmentation",
    "data_loader",
    "deform_conv",
    "inference",
    "training",
]

_Info = dict[str, Any]
_DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
# XLA selects algorithms by trial too.
torch.backends.cudnn.benchmark = True


def inference(
    model: str,
    fields: Mapping[str, Any],
    batch_size: int,
    image_size: int,
    dtype: str,
    channels_last: bool = False,
    compiled: bool = False,
) -> tuple[Program, _Info]:
    """Logits of images in evaluation mode."""
    net = _network(model, fields, channels_last, compiled)
    images = _images(batch_size, image_size, channels_last)
    net.eval()

    def run(calls: int) -> None:
        with torch.inference_mode(), _precision(dtype):
            for _ in range(calls):
                net(images)
        _wait()

    return run, {}


def training(
    model: str,
    fields: Mapping[str, Any],
    batch_size: int,
    image_size: int,
    dtype: str,
    channels_last: bool = False,
    compiled: bool = False,
) -> tuple[Program, _Info]:
    """Training steps with cross entropy, SGD and momentum."""
    net = _network(model, fields, channels_last, compiled)
    images = _images(batch_size, image_size, channels_last)
    net.train()
    labels = torch.arange(batch_size, device=_DEVICE) % 10
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-3, momentum=0.9)

    def run(calls: int) -> None:
        for _ in range(calls):
            optimizer.zero_grad(set_to_none=True)
            with _precision(dtype):
                loss = functional.cross_entropy(net(images), labels)
            loss.backward()
            optimizer.step()
        _wait()

    return run, {}


def augmentation(
    task: str, batch_size: int, size: int, window: int, on: str
) -> tuple[Program, _Info]:
    """An augmentation by torchvision's v2; see `benchmarks.augmentation`.

    Args:
      task: one of `benchmarks.augmentation.TASKS`.
      batch_size: images per call.
      size: height and width of the images, in pixels.
      window: height and width of a crop, in pixels.
      on: its input: "uint8" or "float32" tensors, or "pillow" images.
    """
    transform = {
        "resized crop + flip": v2.Compose(
            [
                v2.RandomResizedCrop(window, antialias=True),
                v2.RandomHorizontalFlip(),
            ]
        ),
        "rotate": v2.RandomRotation(30, v2.InterpolationMode.BILINEAR),
        "rand_augment": v2.RandAugment(interpolation=v2.InterpolationMode.BILINEAR),
        "colour jitter": v2.ColorJitter(0.4, 0.4, 0.4, 0.1),
    }[task]
    scale = v2.ToDtype(torch.float32, scale=True)
    whole = {
        "uint8": v2.Compose([transform, scale]),
        "float32": v2.Compose([scale, transform]),
        "pillow": v2.Compose([transform, v2.ToImage(), scale]),
    }[on]
    torch.manual_seed(0)
    images: Any = torch.randint(0, 256, (batch_size, 3, size, size), dtype=torch.uint8)
    images = list(images if on == "pillow" else images.to(_DEVICE))
    if on == "pillow":
        images = [v2.functional.to_pil_image(image) for image in images]

    def run(calls: int) -> None:
        for _ in range(calls):
            torch.stack([whole(image) for image in images]).to(_DEVICE)
        _wait()

    return run, {}


def deform_conv(
    batch_size: int, size: int, channels: int, gradients: bool
) -> tuple[Program, _Info]:
    """The deformable 3x3 of torchvision, v2; see `benchmarks.deform_conv`."""
    torch.manual_seed(0)
    place: Any = {"device": _DEVICE, "requires_grad": gradients}
    x = torch.randn(batch_size, channels, size, size, **place)
    offset = 2 * torch.randn(batch_size, 18, size, size, device=_DEVICE)
    offset.requires_grad_(gradients)
    weight = torch.randn(channels, channels, 3, 3, **place)
    mask = torch.rand(batch_size, 9, size, size, **place)
    arguments = (x, offset, weight, mask)

    def run(calls: int) -> None:
        for _ in range(calls):
            y = torchvision.ops.deform_conv2d(x, offset, weight, padding=1, mask=mask)
            if gradients:
                torch.autograd.grad(y.square().sum(), arguments)
        _wait()

    return run, {}


def data_loader(
    folder: str, task: str, batch_size: int, size: int, ahead: int
) -> tuple[Program, _Info]:
    """Batches of an `ImageFolder`, one process per core; see `benchmarks.input`."""
    cuts = {
        "resized crop": [v2.RandomResizedCrop(size, antialias=True)],
        "centre": [v2.Resize(round(size * 256 / 224)), v2.CenterCrop(size)],
    }[task]
    images = torchvision.datasets.ImageFolder(
        os.path.join(folder, "train"), v2.Compose([*cuts, v2.PILToTensor()])
    )
    # Endless, because the processes would idle at the end of an epoch.
    order = torch.utils.data.RandomSampler(images, replacement=True, num_samples=2**40)
    batches = iter(
        torch.utils.data.DataLoader(
            images,
            batch_size,
            sampler=order,
            num_workers=os.cpu_count() or 1,
            pin_memory=_DEVICE.type == "cuda",
        )
    )

    def run(calls: int) -> float:
        for _ in range(ahead):
            next(batches)
        start = time.perf_counter()
        for _ in range(calls):
            next(batches)[0].to(_DEVICE)
        _wait()
        return time.perf_counter() - start

    return run, {}


def _network(
    model: str, fields: Mapping[str, Any], channels_last: bool, compiled: bool
) -> Any:
    torch.manual_seed(0)
    net: Any = _build(model, fields).to(_DEVICE)
    net = net.to(memory_format=_layout(channels_last))
    return torch.compile(net) if compiled else net


def _build(model: str, fields: Mapping[str, Any]) -> nn.Module:
    if "stage_sizes" in fields:
        return _short_resnet18(fields["stage_sizes"])
    if model not in MODELS:
        raise ValueError(f"There is no {model} in torchvision.")
    return MODELS[model]()


def _images(batch_size: int, image_size: int, channels_last: bool) -> torch.Tensor:
    images = torch.randn(batch_size, 3, image_size, image_size, device=_DEVICE)
    return images.to(memory_format=_layout(channels_last))


def _layout(channels_last: bool) -> torch.memory_format:
    return torch.channels_last if channels_last else torch.contiguous_format


def _precision(dtype: str) -> Any:
    narrow = dtype != "float32"
    return torch.autocast(_DEVICE.type, getattr(torch, dtype), enabled=narrow)


def _wait() -> None:
    if _DEVICE.type == "cuda":
        torch.cuda.synchronize()


class _SqueezeExcite(nn.Module):
    """As in timm's `seresnet50`: 1x1 convolutions to a sixteenth of the channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, channels // 16, 1)
        self.fc2 = nn.Conv2d(channels // 16, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        s = functional.relu(self.fc1(x.mean((2, 3), keepdim=True)))
        return x * torch.sigmoid(self.fc2(s))


class _Deform(nn.Module):
    """Deformable 3x3 with offsets, and masks in v2, from a plain 3x3 of its input."""

    def __init__(self, plain: nn.Conv2d, modulated: bool) -> None:
        super().__init__()
        self.modulated = modulated
        shape = {"kernel_size": 3, "stride": plain.stride, "padding": 1}
        taps = 27 if modulated else 18
        self.offset = nn.Conv2d(plain.in_channels, taps, **shape)
        nn.init.zeros_(self.offset.weight)
        nn.init.zeros_(self.offset.bias)  # pyright: ignore[reportArgumentType]
        self.conv = torchvision.ops.DeformConv2d(
            plain.in_channels, plain.out_channels, bias=False, **shape
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        branch = self.offset(x)
        if not self.modulated:
            return self.conv(x, branch)
        return self.conv(x, branch[:, :18], torch.sigmoid(branch[:, 18:]))


def _short_resnet18(stage_sizes: Sequence[int]) -> nn.Module:
    net = resnet.resnet18()
    stages = [net.layer1, net.layer2, net.layer3, net.layer4]
    for i, stage in enumerate(stages):
        blocks = stage[: stage_sizes[i]] if i < len(stage_sizes) else nn.Sequential()
        setattr(net, f"layer{i + 1}", blocks)
    net.fc = nn.Linear(64 * 2 ** (len(stage_sizes) - 1), 1000)
    return net


def _seresnet50() -> nn.Module:
    net = resnet.resnet50()
    for block in net.modules():
        if isinstance(block, resnet.Bottleneck):
            block.bn3 = nn.Sequential(block.bn3, _SqueezeExcite(block.bn3.num_features))
    return net


def _resnet50_dcn(modulated: bool) -> nn.Module:
    net = resnet.resnet50()
    for stage in (net.layer2, net.layer3, net.layer4):
        for block in stage:
            block.conv2 = _Deform(block.conv2, modulated)
    return net


def _torchvision(name: str, **options: Any) -> Callable[[], nn.Module]:
    return partial(torchvision.models.get_model, name, weights=None, **options)


# Name in our registry -> torch's model with the same parameters.
MODELS: dict[str, Callable[[], nn.Module]] = {
    name: _torchvision(name) for name in torchvision.models.list_models()
} | {
    "googlenet": _torchvision("googlenet", init_weights=False, aux_logits=False),
    "seresnet50": _seresnet50,
    "resnet50_dcn": partial(_resnet50_dcn, False),
    "resnet50_dcnv2": partial(_resnet50_dcn, True),
}
