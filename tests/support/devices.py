"""Running programs on simulated devices, whose number is fixed when JAX starts."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any


def on_four_devices(program: Path, **environment: str) -> Any:
    """The JSON that a program prints on four simulated devices; warnings are errors."""
    done = subprocess.run(
        [sys.executable, "-W", "error", program],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(sys.path),
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": "--xla_force_host_platform_device_count=4",
            **environment,
        },
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
