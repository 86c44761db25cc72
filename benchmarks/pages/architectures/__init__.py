"""`docs/architectures.md`: the cost of the papers' nets, and their ideas in numbers."""
