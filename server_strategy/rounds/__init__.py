"""The rounds of stage 1: the strategy over users, who takes part, the steps between messages and average."""
