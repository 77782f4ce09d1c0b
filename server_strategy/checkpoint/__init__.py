"""What a run that was broken off goes on from.

checkpoint   a finished round on disk: written durably, the one before kept, read back checked
history      the finished rounds of this run, those of before it was broken off included
memory       what a strategy and its steps remember from round to round, as tensors
resume       which checkpoint a run goes on from, and whether it is this run's
"""
