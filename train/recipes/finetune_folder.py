"""ResNet-50 with ImageNet weights, fine-tuned on a folder of your own photographs.

    python -m train finetune_folder --data folder:PATH --out runs/mine

`PATH` has one folder per class, or `train` and `test` with one folder per class each.
In the first case a fifth of each class, chosen by the seed, is held out. The published
weights are downloaded once; `--init` also takes a file, a run or a Hugging Face Hub id
of the same `--model`. The head is newly initialised for your classes; the backbone has
a tenth of its learning rate. With few images per class the recipe `features_folder` may
do better; `python -m train advise` recommends one. Not run: the result depends on your
images. On a GPU, add `--dtype bfloat16`.
"""

from train.config import Augment, Config, Input, Network, Optimization, Transfer

gave = "not run: the images are yours"

config = Config(
    input=Input(
        data="folder:images",
        image_size=224,
        load_size=256,
        crop_pct=224 / 256,
        batch_size=64,
    ),
    network=Network("resnet50", init="published"),
    augment=Augment(flip=0.5, crop_scale=0.3),
    optimization=Optimization(
        learning_rate=0.1, warmup_epochs=1, weight_decay=1e-4, label_smoothing=0.1
    ),
    transfer=Transfer(backbone_rate=0.1),
    epochs=15,
)
