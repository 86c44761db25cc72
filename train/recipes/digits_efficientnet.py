"""EfficientNet-B0 with a quarter of its channels on scikit-learn's digits at 32 px.

    python -m train digits_efficientnet
    python -m train search-scaling digits_efficientnet --out runs/scaling

The second command is the paper's search: nets of about twice the work, by depth, width,
resolution and what lies between. It shows the search on real data; nothing about larger
images follows from what it finds.
"""

from train.config import Augment, Config, Input, Network, Optimization

gave = "not run"

config = Config(
    input=Input(
        data="digits", image_size=32, batch_size=64, mean=(0.305,), std=(0.376,)
    ),
    network=Network(
        "efficientnet_b0", {"width_multiplier": 0.25, "drop_path_rate": 0.0}
    ),
    augment=Augment(crop_padding=3),
    optimization=Optimization(
        optimizer="adamw", learning_rate=3e-3, warmup_epochs=1, weight_decay=0.01
    ),
    epochs=8,
    log_every=22,
)
