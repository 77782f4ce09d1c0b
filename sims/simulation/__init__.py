"""Runs of the Flower apps on this machine: apps, SuperLink, processes, seats, time.

apps          the apps: where they are, their settings with overrides, checked before anything starts
app_run       a whole run of an app by `sims/run.py`, as a process whose lines are heard
environment   what processes are told by their environment, and the folder of a run
superlink     a SuperLink for simulations; start, log and status asked from a program
watch         a SuperLink watched while a run goes on: what it started, what was lost
processes     families of processes: who belongs to whom, their end, their memory
seats         where cells run: a SuperLink or a process kept between them, a share of the cores
in_process    a run in this one process, without Flower's transport and without Ray
worker        a process that is kept to run app after app in itself
wall_clock    where the time of a whole run goes
"""
