"""The run config: its keys and their rules, the registry of methods, paths."""
