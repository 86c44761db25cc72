"""`docs/results.md`: what learning with few labels gained, and from what."""
