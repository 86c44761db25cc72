"""Compares a model with the figures of its reference, on seeded weights.

The import and the model are proved by one number.
"""

import chex
import jax
import jax.numpy as jnp
import numpy as np

import cnn_flax
from tests.support import figures


def relative_norm(a, b):
    return np.linalg.norm(a - b) / np.linalg.norm(b)


def imported(name, reference, dtype=jnp.float32, **fields):
    """The model, and its variables from the reference's checkpoint."""
    state_dict = figures.seeded_state_dict(reference["state_dict"])
    variables = cnn_flax.weights.from_torch(name, state_dict, **fields)
    return cnn_flax.create_model(name, dtype=dtype, **fields), jax.tree.map(
        lambda x: jnp.asarray(x, dtype), variables
    )


def check_logits(name, reference_name, **fields):
    """Parameter count, and float32 logits at every size of the reference."""
    reference = figures.model_figures(reference_name)
    model, variables = imported(name, reference, **fields)
    count = sum(x.size for x in jax.tree.leaves(variables["params"]))
    assert count == reference["parameters"]
    for (height, width), expected in reference["logits"].items():
        images = figures.images(2, height, width)
        logits = jax.jit(model.apply)(variables, images)
        chex.assert_shape(logits, (2, 1000))
        # Within 20 times the distance of torch's own float32 from its float64.
        noise = reference[f"float32_noise_{height}x{width}"]
        assert relative_norm(logits, expected) < 20 * noise


def check_training_pass(name, reference_name, auxiliary_weight=0.0, **fields):
    """Loss, gradient norms and running means of one pass, in float64.

    `auxiliary_weight` is what the loss of each auxiliary head counts.
    """
    reference = figures.model_figures(reference_name)
    expected = reference["train"]
    model, variables = imported(name, reference, jnp.float64, **fields)
    n, _, height, width = expected["images"]
    images = jnp.asarray(figures.images(n, height, width), jnp.float64)
    labels = jnp.asarray(expected["labels"])

    def loss_fn(params):
        logits, new = model.apply(
            {**variables, "params": params},
            images,
            train=True,
            mutable=["batch_stats", "intermediates"],
        )
        loss = cnn_flax.losses.cross_entropy(logits, labels)
        if auxiliary_weight:
            for head in ("aux1_logits", "aux2_logits"):
                (auxiliary,) = new["intermediates"][head]
                loss += auxiliary_weight * cnn_flax.losses.cross_entropy(
                    auxiliary, labels
                )
        return loss, new.get("batch_stats", {})

    (loss, statistics), gradients = jax.jit(jax.value_and_grad(loss_fn, has_aux=True))(
        variables["params"]
    )
    np.testing.assert_allclose(loss, expected["loss"], rtol=1e-5)

    gradients = cnn_flax.weights.to_torch(name, {"params": gradients})
    norms = {entry: np.linalg.norm(g) for entry, g in gradients.items()}
    assert set(norms) == set(expected["gradient_norm"])
    # A bias before a BatchNorm has gradient zero, up to rounding.
    floor = 1e-8 * max(expected["gradient_norm"].values())
    for entry, norm in expected["gradient_norm"].items():
        np.testing.assert_allclose(
            norms[entry], norm, rtol=1e-5, atol=floor, err_msg=entry
        )

    statistics = cnn_flax.weights.to_torch(name, {"batch_stats": statistics})
    for entry, norm in expected.get("running_mean_norm_after", {}).items():
        np.testing.assert_allclose(
            np.linalg.norm(statistics[entry]), norm, rtol=1e-5, err_msg=entry
        )
