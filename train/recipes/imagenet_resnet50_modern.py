"""ResNet-50 on ImageNet's 1.28 million photographs: torchvision's second recipe.

    python -m train imagenet_resnet50_modern --out runs/imagenet_modern

The data is `tfds:imagenet2012`, or `--data folder:PATH` with `train` and `val` in it.
`--dry-run` builds everything and says what memory and operations it takes; it works
without the data. Add `--dtype bfloat16` on a GPU or TPU, and `--gradient-accumulation`
where 1,024 images at once are too many.

As torchvision's: SGD with momentum 0.9, rate 0.5 for batches of 1,024, five epochs of
warm-up, then a cosine; 600 epochs; decay 2e-5, not on scales; label smoothing 0.1;
windows of 8 to 100 % of the whole photograph at 176 px, mirroring, TrivialAugment
(wide), erasing of one image in ten, then Mixup (0.2) or CutMix (1.0); the test at
224 px out of 232; running means of the weights, which a step moves as much as theirs do
in 32.

Otherwise: stochastic depth of 0.05, as in Wightman et al. 2021, "ResNet strikes back",
https://arxiv.org/abs/2110.00476, where torchvision has none; biases do not decay
either; momentum is Nesterov's; BatchNorm is over the batch of all devices; the batch
has every image once, where torchvision repeats each four times. It was not run:
torchvision states 80.86 % for its own, with the repetition.
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
        # 1 - (1 - 0.99998) * 1024 * 32 / 600 / 32: what theirs comes to, a step.
        ema_decay=0.999966,
    ),
    epochs=600,
    log_every=100,
    checkpoint_every=1000,
)
