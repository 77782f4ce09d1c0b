"""Intervals and tests for paired numbers of a few users: arrays in, numbers out. Knows no report and no metric."""
