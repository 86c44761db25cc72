"""Programs that write the pages of `docs/` from raw results."""
