"""A head on the features of ResNet-50 with ImageNet weights, for your own photographs.

    python -m train features_folder --data folder:PATH --out runs/mine

`PATH` holds a folder a class, or `train` and `test` with a folder a class in each;
otherwise a fifth of each class, drawn by the seed, is held out. The weights stay as
they are, so that each image goes through them once, and its features are kept in the
run's folder; with augmentation, such as `--flip 0.5`, it goes through them every time.
It suits few images of the kind that the weights know: `python -m train advise` tells.
It was not run: what it gives is up to your images.
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
