"""JSON files of any size, one record at a time.

reader   a file in, its records out, by its suffix
array    one array of any size, decoded object by object
lines    an object a line, in a file that may grow and be damaged
text     JSON from strict UTF-8, and its one-line errors
"""
