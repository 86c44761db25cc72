"""A run on disk and in time: its program, loop, folder, checkpoints and caches."""
