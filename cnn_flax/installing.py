"""`install_command`: how to install an extra of this package, where it runs from."""

import importlib.metadata
import json
import os
import pathlib
import urllib.parse
import urllib.request

__all__ = ["install_command"]

_NAME = "cnn-flax"
_ROOT = pathlib.Path(__file__).resolve().parents[1]


def install_command(*extras: str) -> str:
    """The command that installs extras, such as `pip install 'cnn-flax[cli]'`.

    In a checkout it names the checkout, since an index may have no package of that name
    or another version; after an installation from a wheel or a repository, that one.
    """
    wanted = ",".join(extras)
    if (_ROOT / "pyproject.toml").is_file():
        place = "." if pathlib.Path.cwd() == _ROOT else _ROOT
        return f"pip install -e '{place}[{wanted}]'"
    origin = _origin()
    return f"pip install '{_NAME}[{wanted}]{f' @ {origin}' if origin else ''}'"


def _origin() -> str:
    """The address that pip installed the package from; empty for an index."""
    try:
        recorded = importlib.metadata.distribution(_NAME).read_text("direct_url.json")
    except importlib.metadata.PackageNotFoundError:
        return ""
    if not recorded:
        return ""
    # https://packaging.python.org/en/latest/specifications/direct-url/
    found = json.loads(recorded)
    url = found.get("url", "")
    path = urllib.request.url2pathname(urllib.parse.urlsplit(url).path)
    if url.startswith("file:") and not os.path.exists(path):
        return ""  # A wheel that is gone.
    if "vcs_info" in found:
        return f"{found['vcs_info']['vcs']}+{url}@{found['vcs_info']['commit_id']}"
    return url
