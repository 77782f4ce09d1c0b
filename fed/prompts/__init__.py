"""What stands before a row: retrieved items of the user's history, a profile text.

before_rows   what stands before a row's own prompt: the profile text and the retrieved items
retrieval     BM25 over one user's history
profile       a user's profile text, written by the base model itself
wording       how a history is worded: as an example, for BM25, as a request for a profile
"""
