"""The folder that the site is built from: `docs`, and the pages made from elsewhere."""

import posixpath
import re
import shutil
from pathlib import Path

from benchmarks.pages.folders import DOCS
from benchmarks.pages.site.cli import library_page, training_page
from benchmarks.pages.site.recipes import recipes_page

__all__ = [
    "ROOT",
    "STAGE",
    "convert_notebook",
    "from_root",
    "stage",
    "to_staged_pages",
    "without_links_out",
]

ROOT = DOCS.parent
STAGE = ROOT / "build" / "docs"  # mkdocs.yml names it as well.

_FROM_ROOT = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
}
# Pages that are made from the repository's files, for links to those files.
_MADE_FROM = {
    **_FROM_ROOT,
    "cnn_flax/cli.py": "cli/cnn-flax.md",
    "train/commands/main.py": "cli/train.md",
    "train/config.py": "cli/train.md#recipe",
    "train/recipes": "recipes.md",
}
# A link in Markdown: the path of its target, then its anchor. Not to other hosts.
_TARGET = re.compile(r"(?<=\]\()(?!https?:|mailto:|#)([^)#\s]+)(#[^)\s]*)?(?=\))")
_LINK = re.compile(r"(?<!!)\[([^\]]+)\]\((?!https?:|mailto:|#)([^)#\s]+)[^)]*\)")


def stage(folder: Path = STAGE) -> None:
    """Writes the folder anew.

    The site's first page is README; contributing and changelog are the files of the
    repository's root; the reference of the command lines comes from their parsers, the
    page of recipes from the recipes, and a notebook becomes a page. Pages link to files
    of the repository, so that the links work there too; here they lead to the pages.
    """
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(DOCS, folder, ignore=shutil.ignore_patterns("measurements"))
    pages = {
        page: from_root((ROOT / name).read_text("utf-8"))
        for name, page in _FROM_ROOT.items()
    }
    pages["cli/cnn-flax.md"] = library_page()
    pages["cli/train.md"] = training_page()
    pages["recipes.md"] = recipes_page()
    for page, text in pages.items():
        (folder / page).parent.mkdir(exist_ok=True)
        (folder / page).write_text(text, "utf-8")
    for path in folder.rglob("*.ipynb"):
        convert_notebook(path)
    for path in folder.rglob("*.md"):
        text, page = path.read_text("utf-8"), path.relative_to(folder).as_posix()
        text = re.sub(r"(?<=\]\()([^)\s:]+)\.ipynb(?=[)#])", r"\1.md", text)
        text = to_staged_pages(text, page)
        path.write_text(without_links_out(text, page), "utf-8")


def from_root(text: str) -> str:
    """A page of the repository's root, its links as seen from `docs`."""

    def target(match: re.Match[str]) -> str:
        path, anchor = match[1], match[2] or ""
        if path in _FROM_ROOT:
            return _FROM_ROOT[path] + anchor
        if path.startswith("docs/"):
            return path.removeprefix("docs/") + anchor
        return f"../{path}{anchor}"

    return _TARGET.sub(target, text)


def to_staged_pages(text: str, page: str) -> str:
    """The page with links to files of the repository that pages are made from.

    The links lead to these pages; `../../train/config.py`, where the flags are, becomes
    `../cli/train.md#recipe`.

    Args:
      text: of the page.
      page: its path in the folder.
    """
    folder = posixpath.dirname(page)

    def target(match: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join(folder, match[1]))
        made = _MADE_FROM.get(path.removeprefix("../"))
        if made is None or not path.startswith("../"):
            return match[0]
        staged, _, anchor = made.partition("#")
        anchor = match[2] or (anchor and f"#{anchor}")
        return posixpath.relpath(staged, folder or ".") + anchor

    return _TARGET.sub(target, text)


def without_links_out(text: str, page: str) -> str:
    """The page with links to files that the site does not have as plain text.

    Pages link to raw results and to source files, for readers of the repository.

    Args:
      text: of the page.
      page: its path in the folder.
    """

    def plain(match: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join(posixpath.dirname(page), match[2]))
        return match[1] if path.startswith(("..", "measurements")) else match[0]

    return _LINK.sub(plain, text)


def convert_notebook(path: Path) -> None:
    """Replaces a notebook by a page with its text, code, outputs and pictures."""
    from nbconvert import MarkdownExporter
    from nbconvert.writers.files import FilesWriter

    resources = {"output_files_dir": f"{path.stem}_files"}
    text, resources = MarkdownExporter().from_filename(str(path), resources)
    FilesWriter(build_directory=str(path.parent)).write(text, resources, path.stem)
    path.unlink()
