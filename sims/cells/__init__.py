"""Grids of runs: what a cell is, which there are, how long they take, running and keeping them.

cell        one method on one task with one seed, in one run of the app
plan        which cells, with which settings (`sims/grid.toml`)
estimate    about how long cells take
run_cells   many cells, one after the other or several at a time; finished ones are kept
draws       what a random search draws: layers, ranks, positions, rates
searched    trials scored on held-out history, the best of them written down
"""
