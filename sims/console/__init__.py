"""What every command shares: options, tables, files, the machine's name, leaving.

command    options: errors in one line, lists of numbers
terminal   where tables are printed
files      JSON and CSV, written by rename
machine    which machine and commit a figure is of
leaving    Ctrl-C and SIGTERM: left once, by the same door as at the end
"""
