"""`docs/results.md`: accuracy of methods for few labels."""
