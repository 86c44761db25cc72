"""ResNet-50 on ImageNet's 1.28 million photographs: torchvision's second recipe.

    python -m train imagenet_resnet50_modern --out runs/imagenet_modern

The data is `tfds:imagenet2012`, or `--data folder:PATH` with `train` and `val` in it.
`--dry-run` builds everything and prints its memory and operations; it works without the
data. Add `--dtype bfloat16` on a GPU or TPU, and `--gradient-accumulation` if 1,024
images at once do not fit in memory.

As in torchvision's recipe: SGD with momentum 0.9, learning rate 0.5 for batches of
1,024, five epochs of warm-up, then cosine decay; 600 epochs; weight decay 2e-5, not on
scales; label smoothing 0.1; random crops of 8 to 100 % of the whole photograph at
176 px, mirroring, TrivialAugment (wide), random erasing with probability 0.1, then
Mixup (0.2) or CutMix (1.0); in evaluation the central 224 px of 232; an exponential
moving average of the weights, updated every step by as much as torchvision's is every
32 steps.

Differences: stochastic depth with rate 0.05, as in Wightman et al. 2021, "ResNet
strikes back", https://arxiv.org/abs/2110.00476, where torchvision has none; no weight
decay on biases either; Nesterov momentum; BatchNorm statistics over the batch of all
devices; each image once in a batch, where torchvision repeats it four times. Not run:
torchvision reports 80.86 % for its own, with the repetition.
"""

from train.config import Augment, Config, Input, Network, Optimization

gave = "not run: 80.86 % by torchvision's own recipe"

config = Config(
    input=Input(
        data="tfds:imagenet2012",
        image_size=224,
        train_size=176,
        crop_pct=224 / 232,
        batch_size=1024,
    ),
    network=Network("resnet50", {"drop_path_rate": 0.05}),
    augment=Augment(
        crop_scale=0.08,
        crop_at_decode=True,
        flip=0.5,
        policy="trivial_augment",
        erase=0.1,
        mixup=0.2,
        cutmix=1.0,
    ),
    optimization=Optimization(
        learning_rate=0.5,
        warmup_epochs=5,
        weight_decay=2e-5,
        label_smoothing=0.1,
        # 1 - (1 - 0.99998) * 1024 * 32 / 600 / 32: torchvision's decay, per step.
        ema_decay=0.999966,
    ),
    epochs=600,
    log_every=100,
    checkpoint_every=1000,
)
