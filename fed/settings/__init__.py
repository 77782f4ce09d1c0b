"""The run config: its keys and their rules, the registry of methods, paths.

settings   the run config, parsed once into a frozen dataclass; rules of several keys
groups     every key in six groups: its type, its rule, what it means
rules      the rules that a key obeys
methods    the registry of methods, one line each
paths      a run's relative paths, made absolute
"""
