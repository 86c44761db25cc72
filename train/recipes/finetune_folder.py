"""ResNet-50 with ImageNet weights, fine-tuned on a folder of your own photographs.

    python -m train finetune_folder --data folder:PATH --out runs/mine

`PATH` holds a folder a class, or `train` and `test` with a folder a class in each;
otherwise a fifth of each class, drawn by the seed, is held out. The published weights
are downloaded once; `--init` takes a file, a run or an id on the Hugging Face Hub as
well, of the same `--model`. The head is a fresh one for your classes; the backbone
learns at a tenth of its rate. With few images a class the recipe `features_folder` may
do better: `python -m train advise` tells. It was not run: what it gives is up to your
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
