"""Writes the figures of dilated nets of torchvision and timm, for `tests/models`.

    pip install torch torchvision timm
    python -m tests.support.dilated_figures

writes `tests/reference/models/dilated.npz` and `.json`. The tests need no torch. The
nets are short, so that they are quick; weights and images are those of
`tests.support.figures`. Each map is that of the last stage, in evaluation mode and
float64, of one image of 49 x 65 px, at every 64th channel.
"""

import json
from pathlib import Path

import numpy as np

from tests.support.figures import REFERENCE, images, seeded_state_dict

FOLDER = REFERENCE / "models"
SIZE = (49, 65)
EVERY = 64


def nets():
    """By the name of the case: the net, our model's name, and its fields."""
    import torchvision
    from timm.models import efficientnet
    from timm.models.resnet import BasicBlock, Bottleneck, ResNet

    sizes = (1, 1, 2, 1)
    short = {"stage_sizes": sizes}
    for stride, replaced in ((16, [False, False, True]), (8, [False, True, True])):
        net = torchvision.models.ResNet(
            torchvision.models.resnet.Bottleneck,
            list(sizes),
            replace_stride_with_dilation=replaced,
        )
        fields = {**short, "output_stride": stride}
        yield f"torchvision_bottleneck_{stride}", net, "resnet50", fields
    dilated = {**short, "output_stride": 8}
    net = ResNet(BasicBlock, sizes, output_stride=8)
    yield "timm_basic_8", net, "resnet18", dilated
    deep = {"stem_width": 32, "stem_type": "deep", "avg_down": True}
    net = ResNet(BasicBlock, sizes, output_stride=8, **deep)
    yield "timm_d_8", net, "resnet18d", dilated
    net = ResNet(Bottleneck, sizes, output_stride=8, down_kernel_size=3)
    fields = {**dilated, "shortcut": "projection_3x3"}
    yield "timm_3x3_shortcut_8", net, "resnet50", fields
    shallow = {"depth_multiplier": 0.3, "output_stride": 8}
    for name, options in (
        ("efficientnet_b0", {}),
        ("tf_efficientnet_b0", {"bn_eps": 1e-3, "pad_type": "same"}),
    ):
        net = efficientnet._gen_efficientnet(name, **shallow, **options)
        yield f"timm_{name}_8", net, name, shallow


def last_map(net, state_dict) -> np.ndarray:
    """The last stage's map, `[1, H', W', channels / EVERY]`."""
    import torch

    tensors = {name: torch.from_numpy(x) for name, x in state_dict.items()}
    net.load_state_dict(tensors, strict=False)
    maps = []
    stage = net.layer4 if hasattr(net, "layer4") else net.blocks
    stage.register_forward_hook(lambda module, args, output: maps.append(output))
    x = images(1, *SIZE).transpose(0, 3, 1, 2).copy()
    with torch.no_grad():
        net.double().eval()(torch.from_numpy(x).double())
    return maps[-1].numpy().transpose(0, 2, 3, 1)[..., ::EVERY]


def main(folder: Path = FOLDER) -> None:
    """Measures every net."""
    import timm
    import torchvision

    versions = [m.__version__.split("+")[0] for m in (torchvision, timm)]
    source = "torchvision {}, timm {}".format(*versions)
    cases, maps = {}, {}
    for case, net, model, fields in nets():
        shapes = {
            entry: list(x.shape)
            for entry, x in net.state_dict().items()
            if not entry.endswith("num_batches_tracked")
        }
        maps[case] = last_map(net, seeded_state_dict(shapes))
        cases[case] = {"model": model, "fields": fields, "state_dict": shapes}
    np.savez(folder / "dilated.npz", **maps)
    text = json.dumps({"source": source, "cases": cases}, separators=(",", ":"))
    (folder / "dilated.json").write_text(text + "\n", "utf-8")


if __name__ == "__main__":
    main()
