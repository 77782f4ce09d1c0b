"""The parts of `gpu.sh` that no other command has.

needs         what this Python lacks: one line each, before anything runs
correctness   losses, edits and texts on a device against float64 on the CPU
base          a random base of published shapes, made on the device and kept in a folder
summary       all parts' numbers in tables, and the goals
"""
