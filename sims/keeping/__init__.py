"""A SuperLink and a Ray that stay from one run to the next (`sims/run.py --keep`).

kept     the command's side: find them, start them, have them for one run, end them
keeper   the process that owns them, and ends them where nobody has used them for a while
state    what the two sides tell each other: a file, and a lock
"""
