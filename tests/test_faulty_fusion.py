import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import jaxlib.version
import numpy as np
import pytest

import cnn_flax  # noqa: F401  It switches the fault off.

FLAG = "--xla_cpu_experimental_ynn_fusion_type"
is_faulty = jaxlib.version.__version__ == "0.10.2"


def test_the_case_that_jaxlib_0_10_2_gets_wrong():
    """https://github.com/jax-ml/jax/issues/39103: the last row was 1,071,645,696."""
    matrix = jnp.eye(3)
    rows = jnp.zeros((32_769, 3)).at[:, 0].set(jnp.arange(32_769.0))
    squares = jax.jit(jax.vmap(lambda row: jnp.sum((matrix @ row) ** 2)))(rows)
    np.testing.assert_array_equal(squares, np.arange(32_769.0, dtype=np.float32) ** 2)


def run(code, flags=None):
    environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    if flags is not None:
        environment["XLA_FLAGS"] = flags
    command = [sys.executable, "-W", "error::DeprecationWarning", "-c", code]
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, check=True
    )


PRINT = "import os; print(os.environ.get('XLA_FLAGS'))"


def test_the_flag_is_added_for_the_faulty_version_only():
    printed = run(f"import cnn_flax; {PRINT}", "--xla_dump_to=").stdout.strip()
    assert printed == (
        "--xla_dump_to= " + FLAG + "=" if is_faulty else "--xla_dump_to="
    )


@pytest.mark.skipif(not is_faulty, reason="another jaxlib has no faulty fusion")
def test_a_flag_of_the_users_stays():
    flags = f"{FLAG}=dot"
    assert run(f"import cnn_flax; {PRINT}", flags).stdout.strip() == flags


def test_a_warning_says_what_to_do_when_it_is_too_late():
    code = "import jax; jax.devices(); import cnn_flax"
    result = run(code)
    if is_faulty:
        assert result.stderr.count("RuntimeWarning: jaxlib 0.10.2 computes some") == 1
        assert f"set XLA_FLAGS={FLAG}= in the environment" in result.stderr
    else:
        assert "Warning" not in result.stderr
