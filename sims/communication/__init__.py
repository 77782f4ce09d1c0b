"""The byte analysis of compare_comm.py: by shapes alone, and measured.

analysis   all numbers that follow from a model's shapes alone
measured   every method in a whole run of the app
results    the measured part, and all files
tables     the tables for people and for programs
frontier   uplink bytes against quality, lever by lever: counted, and measured
codings    what entropy coding is worth on a run's own change
figures    federated traffic, storage and serving, method by method
"""
