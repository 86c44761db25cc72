"""EfficientNet-B0 with a quarter of its channels on scikit-learn's digits at 32 px.

    python -m train digits_efficientnet
    python -m train search-scaling digits_efficientnet --out runs/scaling

The second command is the paper's search: models of about twice the operations, scaled
in depth, width, resolution or a combination. The first command gave 85.5 % of the 359
held-out digits, in 3 min 19 s of training; the search, with one seed:

    depth 1.0  width 1.0  resolution 1.4   97.2 %
    depth 1.0  width 1.2  resolution 1.2   98.3 %
    depth 1.0  width 1.4  resolution 1.0   91.1 %
    depth 1.4  width 1.0  resolution 1.2   90.5 %
    depth 1.4  width 1.2  resolution 1.0   37.1 %
    depth 2.0  width 1.0  resolution 1.0   58.5 %

(2026-11-24, 2 shared cores of an AMD EPYC, JAX 0.10.2.) After 704 steps the deeper
models are far from converged: this shows that the search works on real data, but
nothing about larger images or longer training.
"""

from train.config import Augment, Config, Input, Network, Optimization

gave = "85.5 %; scaled by the search 98.3 %"

config = Config(
    input=Input(
        data="digits", image_size=32, batch_size=32, mean=(0.305,), std=(0.376,)
    ),
    network=Network(
        "efficientnet_b0", {"width_multiplier": 0.25, "drop_path_rate": 0.0}
    ),
    augment=Augment(crop_padding=3),
    optimization=Optimization(
        optimizer="adamw", learning_rate=3e-3, warmup_epochs=2, weight_decay=0.01
    ),
    epochs=16,
    log_every=22,
)
