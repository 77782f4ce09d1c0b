"""The byte analysis of compare_comm.py: by shapes alone, and measured."""
