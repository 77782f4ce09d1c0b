"""Subcommands of `explore.py` that sweep over runs of the app, a cell each, kept and gone on with where they stood.

runs        one cell of a sweep, and what its report says
layers      which blocks to edit, and how many (Figure 11)
ranks       collective rank against personal rank (Figure 10)
trade_off   quality against parameters, method by method (Figures 1b and 9)
"""
