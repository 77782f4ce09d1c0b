"""Means of edits, for the server's side of a federated round: by name (`average`), one file a mean."""
