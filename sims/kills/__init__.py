"""Runs that are killed at random moments and gone on with: what is left, what is lost, what they end with.

trial        what a run has finished, what it ended with, and what became of one kill
in_process   kills of a run in one process: at a moment, in a message, in a write
on_flower    kills of a run on Flower and Ray: an actor, the simulation, the SuperLink, the command, all at once
"""
