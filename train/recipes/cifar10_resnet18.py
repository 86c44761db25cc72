"""ResNet-18 on CIFAR-10: 50,000 + 10,000 photographs of 32 x 32 pixels.

    python -m train cifar10_resnet18 --out runs/cifar10

The data is `tfds:cifar10`; if it is not prepared, the error message says how to
prepare it. The model is the variant for small images: a 3x3 stem without pooling. Not
run. Add `--dtype bfloat16` on a GPU or TPU.
"""

from train.config import Augment, Config, Input, Network, Optimization

gave = "not run"

config = Config(
    input=Input(
        data="tfds:cifar10",
        image_size=32,
        batch_size=128,
        mean=(0.4914, 0.4822, 0.4465),
        std=(0.2470, 0.2435, 0.2616),
    ),
    network=Network("resnet18", {"small_inputs": True}),
    augment=Augment(flip=0.5, crop_padding=4),
    optimization=Optimization(learning_rate=0.1, warmup_epochs=1, weight_decay=5e-4),
    epochs=60,
    log_every=100,
)
