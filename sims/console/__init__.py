"""What every command shares: options, tables, files, the machine's name, leaving.

installed    imported first: a Python without the project ends there
command      options, errors in one line, exit codes
terminal     where tables are printed
files        JSON and CSV, whole or not there
machine      which machine a figure is of
leaving      Ctrl-C and SIGTERM: left once, by the same door as at the end
"""
