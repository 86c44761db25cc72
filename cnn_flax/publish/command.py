"""`cnn-flax push`: its flags and its body."""

import argparse
import pathlib

from cnn_flax.publish.folder import PublishError, write_folder
from cnn_flax.publish.hub import push
from cnn_flax.weights.identify import identify_weights

__all__ = ["add_flags", "run"]


def add_flags(command: argparse.ArgumentParser) -> None:
    """Adds the flags of the command."""
    command.add_argument(
        "source", metavar="RUN|FILE", help="the folder of a run, or a file of weights"
    )
    command.add_argument(
        "--repo", metavar="ID", help="the repository to push to, owner/name"
    )
    command.add_argument(
        "--to", metavar="FOLDER", type=pathlib.Path, help="write the folder here"
    )
    command.add_argument(
        "--license",
        metavar="NAME",
        help="the licence, such as apache-2.0; by default that of published weights",
    )
    command.add_argument("--model", help="the model of the file, if it does not say")
    command.add_argument(
        "--private", action="store_true", help="make a new repository private"
    )


def run(options: argparse.Namespace) -> str:
    """Runs the command; returns what to print.

    Raises:
      PublishError: if the command cannot be run.
      WeightsError: if the weights cannot be read.
    """
    if not options.repo and not options.to:
        raise PublishError("Name a repository, --repo owner/name, or a folder, --to.")
    weights = identify_weights(options.model, options.source)
    lines = []
    if options.to:
        folder = options.to.expanduser()
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise PublishError(f"{folder} exists, and is no empty folder.")
        config = write_folder(
            weights, folder, license=options.license, repository=options.repo
        )
        reads = "timm and cnn_flax read" if _is_timm(config) else "cnn_flax reads"
        lines.append(f"{folder}: {weights.name}; {reads} it.")
    if options.repo:
        address = push(
            weights, options.repo, license=options.license, private=options.private
        )
        lines.append(f"{options.repo}: {weights.name}, {address}")
    return "\n".join(lines)


def _is_timm(config) -> bool:
    return "classifier" in config["pretrained_cfg"]
