"""Forward passes that many users share: rows and batches, losses of completions, states kept for later passes."""
