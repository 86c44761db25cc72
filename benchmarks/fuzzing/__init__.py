"""Hostile files: how they are made, what reads them, and the process that tries."""
