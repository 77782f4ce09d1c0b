"""Answers and losses under edits: decoding, scoring, choice among labels, the four arms of a test.

reader          what answers: rows to score or to continue, and under whose edits
edited_rows     a row and the edits of a stack that apply to it
first_pass      the pass over prompts that decoding begins with; what arms of a prompt share is read once
decoding/       text under each row's own edits, greedy or drawn
scoring         losses of given completions; rows of many users and arms share a batch
shared_prompt   losses of several completions of one prompt, read once
choice          answers by constrained choice among a task's labels
evaluation      the four arms of a user's test
ceiling         what max-new-tokens leaves of the golds, and so of ROUGE-L
comparisons     which arms or methods differ: a difference a user, its interval, and p
"""
