"""Our model as a Keras layer, trained by `fit`.

    pip install keras
    python examples/train_with_keras.py

Keras' `JaxLayer` takes a function of parameters, state, a key, inputs and `training`;
BatchNorm's statistics are the state. Their values are given, as those of
`cnn_flax.load_pretrained` would be: to initialize one, Keras 3.15 imports TensorFlow.
"""

import os
from typing import Any

os.environ["KERAS_BACKEND"] = "jax"  # Before Keras is imported.

import jax
import keras
from flax import linen as nn
from small_digits import FIELDS, digits

import cnn_flax


def as_layer(model: nn.Module, variables: dict[str, Any]) -> keras.layers.JaxLayer:
    """A model with its variables as a layer that returns logits."""

    def call(params, state, rng, inputs, training):
        variables = {"params": params, "batch_stats": state}
        if not training:
            return model.apply(variables, inputs), state
        logits, new = model.apply(
            variables,
            inputs,
            train=True,
            mutable=["batch_stats"],
            rngs={"dropout": rng, "drop_path": jax.random.fold_in(rng, 1)},
        )
        return logits, new["batch_stats"]

    return keras.layers.JaxLayer(
        call_fn=call, params=variables["params"], state=variables["batch_stats"]
    )


def main(epochs: int = 9) -> None:
    """Trains, and prints the accuracy."""
    images, labels, test_images, test_labels = digits()
    resnet = cnn_flax.create_model("resnet18", **FIELDS)
    layer = as_layer(resnet, resnet.init(jax.random.key(0), images[:1]))
    inputs = keras.Input((8, 8, 1))
    model = keras.Model(inputs, layer(inputs))
    rate = keras.optimizers.schedules.CosineDecay(3e-3, epochs * len(images) // 64)
    model.compile(
        optimizer=keras.optimizers.AdamW(rate),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    model.fit(images, labels, batch_size=64, epochs=epochs, verbose=0)
    _, accuracy = model.evaluate(test_images, test_labels, verbose=0)
    print(f"accuracy {100 * accuracy:.1f} %")


if __name__ == "__main__":
    main()
