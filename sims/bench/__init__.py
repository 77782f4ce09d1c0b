"""Benchmarks: engines in turn, the profile of a step, memory, scale, restart."""
