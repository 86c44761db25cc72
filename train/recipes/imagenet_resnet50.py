"""ResNet-50 on ImageNet's 1.28 million photographs: torchvision's 90-epoch recipe.

    python -m train imagenet_resnet50 --out runs/imagenet

The data is `tfds:imagenet2012`, or `--data folder:PATH` with `train` and `val` in it.
`--dry-run` builds everything and prints its memory and operations; it works without the
data. Add `--dtype bfloat16` on a GPU or TPU.

As in torchvision's recipe: SGD with momentum 0.9, learning rate 0.1 for batches of 256,
weight decay 1e-4, random crops of 8 to 100 % of the whole photograph, mirroring; in
evaluation the central 224 px of 256, bilinear; the learning rate falls to a tenth every
30 epochs. Differences: Nesterov momentum; no weight decay on scales and biases;
BatchNorm statistics over the batch of all devices. Not run: torchvision reports 76.13 %
for its own.
"""

from train.config import Augment, Config, Input, Network, Optimization

gave = "not run: 76.13 % by torchvision's own recipe"

config = Config(
    input=Input(
        data="tfds:imagenet2012",
        image_size=224,
        crop_pct=224 / 256,
        batch_size=256,
    ),
    network=Network("resnet50"),
    augment=Augment(crop_scale=0.08, crop_at_decode=True, flip=0.5),
    optimization=Optimization(
        learning_rate=0.1, schedule="step", step_epochs=30, weight_decay=1e-4
    ),
    epochs=90,
    log_every=100,
    checkpoint_every=1000,
)
