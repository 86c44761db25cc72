"""Uploading a folder to the Hugging Face Hub."""

import pathlib
import re
import tempfile
from typing import Any

from cnn_flax.installing import install_command
from cnn_flax.publish.folder import PublishError, write_folder
from cnn_flax.weights.identify import IdentifiedWeights

__all__ = ["push"]


def push(
    weights: IdentifiedWeights,
    repository: str,
    *,
    license: str | None = None,
    private: bool = False,
) -> str:
    """Publishes weights on the Hugging Face Hub; the repository is created if needed.

    The user must be logged in (`hf auth login`, or the variable HF_TOKEN).

    Args:
      weights: what `cnn_flax.weights.identify.identify_weights` returns.
      repository: its id, `owner/name`.
      license: as for `write_folder`.
      private: whether a new repository is private.

    Returns:
      The address of the commit.

    Raises:
      ImportError: if the package huggingface_hub is not installed.
      PublishError: if the Hub refuses, or is not reached.
      WeightsError: if the weights cannot be loaded.
    """
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repository):
        raise PublishError(f"An id on the Hub is owner/name, got {repository!r}.")
    try:
        import huggingface_hub
    except ImportError as error:
        raise ImportError(
            f"The Hub is reached with huggingface_hub; install it: "
            f"{install_command('hub')}."
        ) from error
    api: Any = huggingface_hub.HfApi(library_name="cnn_flax")
    with tempfile.TemporaryDirectory(prefix="cnn-flax-") as place:
        folder = pathlib.Path(place)
        write_folder(weights, folder, license=license, repository=repository)
        try:
            api.create_repo(repository, private=private, exist_ok=True)
            commit = api.upload_folder(
                repo_id=repository,
                folder_path=folder,
                commit_message=f"Add {weights.name}",
            )
        except (OSError, ValueError) as error:  # Those of the Hub among them.
            reason = str(error).strip().partition("\n")[0]
            raise PublishError(
                f"The Hugging Face Hub does not take {repository}: {reason}"
            ) from error
    return str(commit.commit_url)
