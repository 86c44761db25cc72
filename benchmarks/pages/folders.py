"""Where the pages, their pictures and the raw results are."""

from pathlib import Path

__all__ = ["DOCS", "MEASUREMENTS", "PICTURES"]

DOCS = Path(__file__).parents[2] / "docs"
MEASUREMENTS = DOCS / "measurements"
PICTURES = DOCS / "pictures"
