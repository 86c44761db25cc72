"""`docs/pictures/badges`: README's badges, from pyproject.toml and `.ci/run`."""

import html
import re
import tomllib
from pathlib import Path

from benchmarks.pages.folders import DOCS, PICTURES

__all__ = ["badge", "badges"]

_CHARACTER, _PADDING = 6.6, 12  # px, at a font size of 11


def main() -> None:
    """Writes the pictures."""
    folder = PICTURES / "badges"
    folder.mkdir(exist_ok=True)
    for name, picture in badges().items():
        (folder / f"{name}.svg").write_text(picture, "utf-8")


def badges(root: Path = DOCS.parent) -> dict[str, str]:
    """Returns each badge as SVG by its name: ci, python, jax, licence.

    Args:
      root: folder of the project.
    """
    project = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["project"]
    jax = next(d for d in project["dependencies"] if re.match(r"jax\b", d))
    supported = [
        found[1]
        for classifier in project["classifiers"]
        if (found := re.search(r":: (3\.\d+)$", classifier))
    ]
    tested = re.search(
        r"^for version in ([\d. ]+)", (root / ".ci/run").read_text(), re.M
    )
    assert tested is not None
    versions = sorted(tested[1].split(), key=lambda v: int(v.split(".")[1]))
    texts = {
        "ci": ("CI", f".ci/run, Python {versions[0]} and {versions[-1]}"),
        "python": ("Python", f"{supported[0]} to {supported[-1]}"),
        "jax": ("JAX", jax.removeprefix("jax").replace(">=", "≥ ")),
        "licence": ("licence", project["license"].replace("-", " ")),
    }
    return {name: badge(*words) for name, words in texts.items()}


def badge(left: str, right: str) -> str:
    """Returns a badge of two words as SVG, legible on light and on dark."""
    first, second = (len(word) * _CHARACTER + _PADDING for word in (left, right))
    title = html.escape(f"{left}: {right}")
    style = 'y="14" text-anchor="middle" font-family="sans-serif" font-size="11"'
    texts = "".join(
        f'<text x="{x:.1f}" {style} fill="#fff">{html.escape(word)}</text>'
        for x, word in ((first / 2, left), (first + second / 2, right))
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{first + second:.1f}" '
        f'height="20" role="img" aria-label="{title}"><title>{title}</title>'
        f'<rect width="{first + second:.1f}" height="20" rx="3" fill="#3d4450"/>'
        f'<path d="M{first:.1f} 0h{second - 3:.1f}a3 3 0 0 1 3 3v14a3 3 0 0 1-3 3'
        f'h-{second - 3:.1f}z" fill="#1d4ed8"/>{texts}</svg>\n'
    )


if __name__ == "__main__":
    main()
