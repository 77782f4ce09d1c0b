"""What the vectors show: shifts of the hidden states by users' histories, and what trained edits look like beside them.

delta_vectors      a user's shift: the state at a prompt's last token with the user's history before it, minus without
spectrum           singular values of many users' shifts, how many hold most of the variance, and what chance would give
collective_shift   the mean shift: its error, coordinate by coordinate and as a whole, and against a control
neighbours         who is near to the mean shift and who is far, and how users write
subspaces          angles between subspaces, and edits compared as functions
clusters           users grouped by distances, and how well groups agree with known ones
"""
