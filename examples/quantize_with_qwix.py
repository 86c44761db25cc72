"""int8 weights and activations for a run's net, by qwix: accuracy and size of both.

    pip install -e '.[train]' qwix
    python -m train digits_resnet --out runs/digits --epochs 6
    python examples/quantize_with_qwix.py runs/digits

Weights are quantized once, per output channel; activations when the net runs. A CPU
runs it more slowly than float32: the point here is what it costs in accuracy.
"""

import argparse
from pathlib import Path
from typing import Any

import jax
import numpy as np
import qwix

from train.data import eval_batches
from train.data.select import decode_options, evaluation_images
from train.learn.step import make_predict_step
from train.run.load import LoadedRun, load_run
from train.run.record import pixel_inputs


def main() -> None:
    """Prints accuracy and size of the net, in its own dtype and in int8."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="folder of the run")
    run = load_run(parser.parse_args().run)
    model, variables = quantized(run)
    for name, net, of_net in (
        ("as trained", run.model, run.variables),
        ("int8", model, variables),
    ):
        correct, count = evaluated(run, net, of_net)
        size = sum(x.nbytes for x in jax.tree.leaves(of_net))
        print(f"{name}: {correct} of {count} images correct, {size:,} bytes")


def quantized(run: LoadedRun) -> tuple[Any, dict[str, Any]]:
    """The net with int8 convolutions and dense layers, and its variables."""
    rule = qwix.QuantizationRule(
        module_path=".*", weight_qtype="int8", act_qtype="int8"
    )
    model = qwix.quantize_model(run.model, qwix.PtqProvider([rule]))
    size, channels = run.record["input"]["image_size"], run.record["input"]["channels"]
    images = jax.ShapeDtypeStruct((1, size, size, channels), np.float32)
    shapes = jax.eval_shape(model.init, jax.random.key(0), images)
    params = qwix.quantize_params(run.variables["params"], shapes["params"])
    return model, {**run.variables, "params": params}


def evaluated(run: LoadedRun, model: Any, variables: Any) -> tuple[int, int]:
    """How many of the run's evaluation images are correct, and how many there are."""
    step = jax.jit(make_predict_step(model, pixel_inputs(run.record)))
    inputs = run.record["input"]
    correct = count = 0
    for batch in eval_batches(
        evaluation_images(run.config),
        batch_size=run.config.input.batch_size,
        image_size=inputs["image_size"],
        channels=inputs["channels"],
        **decode_options(run.config),
    ):
        is_image = np.asarray(batch["mask"], bool)
        answers = np.asarray(step(variables, batch["image"])).argmax(-1)
        correct += int((answers == batch["label"])[is_image].sum())
        count += int(is_image.sum())
    return correct, count


if __name__ == "__main__":
    main()
