"""What lets a run be gone on with where private tensors live: whose a folder is, and what a run has done in a vault.

lock     which run holds a vault, or a run's folder
of_run   what a vault holds of one run: who is done, the collective edits that users keep
"""
