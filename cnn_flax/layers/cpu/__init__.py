"""Formulations that only XLA's CPU backend runs, and what selects them.

Nothing here changes what a layer computes: the public layers of `cnn_flax.layers` have
the same parameters, shapes and, up to rounding, the same numbers on every platform.
"""
