"""ResNet-18 on a folder of your own photographs, from random weights.

    python -m train folder_resnet18 --data folder:PATH --out runs/mine

`PATH` has one folder per class, or `train` and `test` with one folder per class each.
In the first case a fifth of each class, chosen by the seed, is held out. Not run: the
result depends on your images. On a GPU, add `--dtype bfloat16`.
"""

from train.config import Augment, Config, Input, Network, Optimization

gave = "not run: your images"

config = Config(
    input=Input(data="folder:images", image_size=224, batch_size=64),
    network=Network("resnet18"),
    augment=Augment(flip=0.5, crop_padding=28),
    optimization=Optimization(
        learning_rate=0.05, warmup_epochs=5, weight_decay=5e-4, label_smoothing=0.1
    ),
    epochs=60,
)
