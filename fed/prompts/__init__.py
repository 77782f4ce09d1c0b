"""What stands before a row: retrieved items of the user's history, a profile text. What a bare tweet is asked for.

before_rows     what stands before a row's own prompt: the profile text and the retrieved items
retrieval       BM25 over one user's history
profile         a user's profile text, written by the base model itself
plain_wording   a tweet's plain wording by the base, the input of a history row that brings none
wording         how a history is worded: as an example, for BM25, as a request for a profile
"""
