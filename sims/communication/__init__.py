"""The byte analysis of compare_comm.py: by shapes alone, and measured.

analysis   all numbers that follow from a model's shapes alone
measured   every method in a whole run of the app
results    the measured part, and all files
tables     the tables for people and for programs
figures    federated traffic, storage and serving, method by method
"""
