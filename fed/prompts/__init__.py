"""What stands before a row: retrieved items of the user's history, a profile text."""
