"""A small ResNet on Fashion-MNIST with 25 labels a class: what the others start from.

    python -m train fashion_mnist_few_labels

The images are Debian's package `dataset-fashion-mnist`; elsewhere, give the folder of
the four files: `--data idx:FOLDER`. `--labels-per-class 4` and `100` are the other two
numbers of labels that docs/results.md has figures for, each over three seeds.
"""

from train.config import Augment, Config, Input, Network, Optimization, Selection

gave = "73 to 77 % with 250 labels, over 3 seeds"

config = Config(
    input=Input(
        data="idx:/usr/share/datasets/fashion-mnist",
        image_size=28,
        batch_size=32,
        mean=(0.286,),
        std=(0.353,),
    ),
    selection=Selection(labels_per_class=25),
    # A stem that halves the image twice makes a step cheap.
    network=Network("resnet18", {"stage_sizes": (1, 1, 1), "width": 16}),
    augment=Augment(flip=0.5, crop_padding=2),
    optimization=Optimization(learning_rate=0.1, warmup_epochs=1, weight_decay=5e-4),
    epochs=4,
    epoch_steps=250,
    log_every=50,
)
