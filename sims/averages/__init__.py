"""The engine of `compare_averages.py`: rounds of stage 1 in this one process, one average a cell.

federation   the base, the users' rows, and one cell's rounds: train, lie, average, test
attacks      what users who lie send: the opposite, far too much, noise, a trained backdoor
cells        which cells there are, which the file has already, and what a cell's settings are
outcome      differences with intervals, tables and figures of finished cells
"""
