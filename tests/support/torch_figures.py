"""Writes the figures of one of torchvision's or timm's models.

    pip install -e '.[bench]'
    python -m tests.support.torch_figures resnet18 --sizes 96x96 65x97 --train 4x96x96

writes `tests/reference/models/tv_resnet18.json` and `.npz` for `tests.support.figures`;
`timm:resnet18`, with `pip install timm`, writes `timm_resnet18`. Tests need no torch.

Weights are seeded by the names of the checkpoint's entries, images are the same for all
models, and there is no dropout or stochastic depth. Logits are in evaluation mode, in
float64; the noise of float32 is torch's own, relative to these. Multiply-adds are those
of convolutions and dense layers, for one image of 224 px. The training pass is in
float64: the mean cross entropy, the norm of each entry's gradient, and the norm of each
running mean after the pass.
"""

import argparse
import importlib.metadata
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from torch import nn

from tests.support.figures import REFERENCE, images, seeded_state_dict

FOLDER = REFERENCE / "models"


def seeded_net(name: str) -> nn.Module:
    """The model with seeded weights, without noise."""
    if name.startswith("timm:"):
        import timm

        net = timm.create_model(name.removeprefix("timm:"))
    else:
        net = torchvision.models.get_model(name)
    for module in net.modules():
        if isinstance(module, nn.Dropout | torchvision.ops.StochasticDepth):
            module.p = 0.0
    weights = seeded_state_dict(shapes(net))
    tensors = {entry: torch.from_numpy(x) for entry, x in weights.items()}
    unseeded = net.load_state_dict(tensors, strict=False).missing_keys
    assert all(entry.endswith("num_batches_tracked") for entry in unseeded)
    return net


def shapes(net: nn.Module) -> dict[str, list[int]]:
    """Shapes of the checkpoint's entries by name, except for the counters."""
    return {
        entry: list(x.shape)
        for entry, x in net.state_dict().items()
        if not entry.endswith("num_batches_tracked")
    }


def inputs(n: int, height: int, width: int) -> torch.Tensor:
    """The figures' images, float32 NCHW."""
    return torch.from_numpy(images(n, height, width).transpose(0, 3, 1, 2).copy())


def evaluation(name: str, height: int, width: int) -> tuple[np.ndarray, float]:
    """Logits of two images, and how far torch's float32 is from its float64."""
    net, x = seeded_net(name).eval(), inputs(2, height, width)
    with torch.no_grad():
        low = net(x).double()
        exact = net.double()(x.double())
    return exact.numpy(), float((low - exact).norm() / exact.norm())


def multiply_adds(name: str) -> int:
    """Multiply-adds of the convolutions and dense layers, for one image of 224 px."""
    net, total = seeded_net(name).eval(), 0

    def count(module, args, output):
        nonlocal total
        total += output.numel() * module.weight[0].numel()

    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(count)
    with torch.no_grad():
        net(inputs(1, 224, 224))
    return total


def training_pass(name: str, n: int, height: int, width: int) -> dict[str, Any]:
    """One pass of n images in training mode."""
    net = seeded_net(name).double().train()
    labels = [37 * i for i in range(n)]
    logits = net(inputs(n, height, width).double())
    loss = nn.functional.cross_entropy(logits, torch.tensor(labels))
    loss.backward()
    figures = {
        "images": [n, 3, height, width],
        "labels": labels,
        "loss": float(loss.detach()),
        "gradient_norm": {k: float(p.grad.norm()) for k, p in net.named_parameters()},
    }
    means = {
        entry: float(x.norm())
        for entry, x in net.state_dict().items()
        if entry.endswith("running_mean")
    }
    return {**figures, "running_mean_norm_after": means} if means else figures


def write(name: str, sizes: list[list[int]], train: list[int], folder: Path) -> None:
    """Measures a model, and writes its two files."""
    net = seeded_net(name)
    library, _, model = name.rpartition(":")
    library = library or "torchvision"
    version = importlib.metadata.version(library).split("+")[0]
    file = f"{'tv' if library == 'torchvision' else library}_{model}"
    figures: dict[str, Any] = {
        "source": f"{library} {version} {model}",
        "parameters": sum(p.numel() for p in net.parameters()),
        "state_dict": shapes(net),
        "multiply_adds_224": multiply_adds(name),
    }
    arrays = {}
    for height, width in sizes:
        size = f"{height}x{width}"
        logits, noise = evaluation(name, height, width)
        arrays[f"logits_{size}"] = logits.astype(np.float32)
        figures[f"float32_noise_{size}"] = noise
    figures["train"] = training_pass(name, *train)
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(folder / f"{file}.npz", **arrays)
    text = json.dumps(figures, separators=(",", ":"))
    (folder / f"{file}.json").write_text(text + "\n", "utf-8")


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description="Writes a model's figures.")
    numbers = lambda text: [int(part) for part in text.split("x")]  # noqa: E731
    parser.add_argument(
        "model", help="one of torchvision.models.list_models(), or timm:NAME"
    )
    parser.add_argument(
        "--sizes", nargs="+", type=numbers, default=[[96, 96], [65, 97]], metavar="HxW"
    )
    parser.add_argument("--train", type=numbers, default=[4, 96, 96], metavar="NxHxW")
    parser.add_argument("--out", type=Path, default=FOLDER, metavar="FOLDER")
    flags = parser.parse_args()
    write(flags.model, flags.sizes, flags.train, flags.out)


if __name__ == "__main__":
    main()
