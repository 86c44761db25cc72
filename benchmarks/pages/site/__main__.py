"""Builds the site."""

import argparse
import subprocess
import sys

import benchmarks.pages.site
from benchmarks.pages.site.stage import ROOT, stage


def main() -> int:
    """Runs the command line; returns Zensical's exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.pages.site",
        description=benchmarks.pages.site.__doc__,
    )
    parser.add_argument(
        "--serve", action="store_true", help="serve the site at localhost:8000 as well"
    )
    options = parser.parse_args()
    stage()
    command = ["serve"] if options.serve else ["build", "--clean", "--strict"]
    return subprocess.run(
        [sys.executable, "-m", "zensical", *command], cwd=ROOT
    ).returncode


if __name__ == "__main__":
    sys.exit(main())
