"""Grids of runs: what a cell is, which there are, how long they take, running and keeping them."""
