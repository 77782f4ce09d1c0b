"""The edits of stage 1 in messages, whole or as changes.

received   the collective edit that a message brings each of its users
sent       what a user federates, in its reply
"""
