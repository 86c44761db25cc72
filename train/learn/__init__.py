"""What is learned and how: steps, objectives, and one file per method."""
