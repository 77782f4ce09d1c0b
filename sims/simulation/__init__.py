"""Runs of the Flower apps on this machine: apps, SuperLink, processes, seats, time."""
