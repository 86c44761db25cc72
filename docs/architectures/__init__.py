"""`docs/architectures.md`: what the papers' nets cost, and their ideas in numbers."""
