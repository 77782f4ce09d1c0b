"""The engine of `explore.py`: its subcommands, one file each, and what they share.

options      what every subcommand is asked, the base and the users that follow from it, the words under a title
figures      drawings as files and inside a page, tables for a terminal and for a page
vectors      delta-vectors: computed user by user into a safetensors file, and read from it
rank         singular values, as the paper's Table 1
shift        the mean shift, as its Figure 2
neighbours   users near to it and far from it, as its Figures 4 to 7
sweeps/      layers, ranks and trade-off, as its Figures 11, 10, 1b and 9: runs of the app, a cell each
learned      what trained edits look like beside δ-vectors
steer        δ-vectors added at decoding, beside the trained edit
page         report: one page of all that was found
"""
