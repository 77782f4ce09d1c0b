"""Local training of one or many users' edits."""
