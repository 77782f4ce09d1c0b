"""The rounds of stage 1: the strategy over users, who takes part, the steps between messages and average.

strategy   any stock Flower strategy over users, with seeded sampling and our means of edits
sampling   who takes part in a round: drawn by (seed, round) alone
"""
