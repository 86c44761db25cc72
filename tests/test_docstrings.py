"""The examples in public docstrings give what they say."""

import doctest
import importlib
import pkgutil

import jax
import jax.numpy as jnp
import pytest

import cnn_flax

NAMES = {"cnn_flax": cnn_flax, "jax": jax, "jnp": jnp}


def examples():
    """The docstrings with examples, one test each."""
    finder = doctest.DocTestFinder(exclude_empty=True)
    for module in pkgutil.walk_packages(cnn_flax.__path__, "cnn_flax."):
        found = finder.find(
            importlib.import_module(module.name), module.name, globs=dict(NAMES)
        )
        yield from (test for test in found if test.examples)


EXAMPLES = {test.name: test for test in examples()}


@pytest.mark.slow
@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_gives_what_it_says(name):
    report = []
    runner = doctest.DocTestRunner(verbose=False)
    assert runner.run(EXAMPLES[name], out=report.append).failed == 0, "".join(report)


def test_there_are_examples():
    assert "cnn_flax.registry.create_model" in EXAMPLES
