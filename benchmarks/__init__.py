"""Benchmarks: each figure is measured against a peer in the same run."""
