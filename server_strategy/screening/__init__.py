"""What the server believes of what nodes send: nothing that has not been held against a rule.

A breach is that node's or that user's named error, and the run goes on without it. Nothing here knows which phase comes
next, sends a message or prints a line.

greeting   whom a node hosts, how much data they have, its base model
replies    what a user sends in each phase: exact records, fields, types, ranges
arrays     an edit off the network, read without a word of its own about its size
values     single numbers and texts
sizes      how large a change a user's edit is, against the round's median
breach     a rule that was broken: one plain line
"""
