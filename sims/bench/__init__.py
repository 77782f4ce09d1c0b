"""Benchmarks: engines in turn, the profile of a step, memory, scale, restart.

cases            what `bench_engine.py` times against what, on which rows
training_cases   training by every engine in turn: tokens a second, the losses compared
opponents        users trained one after the other by pyreft's and PEFT's own loops
in_turn          engines timed in turn in one process
step_profile     what holds a step: kinds of work, speed of bare products, their count
engine_tables    what `bench_engine.py` prints
memory           what processes, actors, runs and users take
scale            the cost of runs against their users, 10 to 10,000
restart          from a message to the first training step, part by part
device_process   one process of a device, whose parts restart reads
"""
