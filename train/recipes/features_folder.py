"""A linear head on ResNet-50's ImageNet features, for your own photographs.

    python -m train features_folder --data folder:PATH --out runs/mine

`PATH` has one folder per class, or `train` and `test` with one folder per class each.
In the first case a fifth of each class, chosen by the seed, is held out. The backbone
is frozen: each image's features are computed once and cached in the run's folder. With
augmentation, such as `--flip 0.5`, they are computed every time. It suits few images
that resemble ImageNet's; `python -m train advise` recommends the kind of transfer for
your images. Not run: the result depends on your images.
"""

from train.config import Config, Input, Network, Optimization, Transfer

gave = "not run: the images are yours"

config = Config(
    input=Input(
        data="folder:images", image_size=224, crop_pct=224 / 256, batch_size=64
    ),
    network=Network("resnet50", init="published"),
    optimization=Optimization(
        optimizer="adamw", learning_rate=3e-3, warmup_epochs=1, weight_decay=0.01
    ),
    transfer=Transfer(transfer="features"),
    epochs=30,
)
