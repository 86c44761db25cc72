"""What the project is measured by, each figure against a peer in the same run."""
