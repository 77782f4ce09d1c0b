"""The rounds of stage 1: the strategy over users, who takes part, the steps between messages and average.

strategy    any stock Flower strategy over users, with seeded sampling, steps and our means of edits
federate    the rounds one after the other, from the first or from where a run was broken off
sampling    who is drawn for a round: by (seed, round) alone
participation   who of them drops out, is slow, late or not needed
step        the seam of a round: before its messages go, before its replies are averaged
numbers     the numbers beside users' edits: weights, and losses that they tell or keep
screened    the step that holds users' edits against each other: their changes, against the median
own_edits   the step of methods that send every user an edit of its own
pooled      central training in place of the rounds, the reference (stage1="pooled")
"""
