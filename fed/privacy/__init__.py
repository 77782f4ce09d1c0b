"""Private tensors at rest: written, sealed, erased.

vault          where a device keeps its private tensors and the collective edit it was given
tensor_files   tensors in files: encoded, written by rename, read back checked
sealed         AES-256-GCM under a key file or a passphrase, with an authenticated header
wipe           overwrite, sync and unlink
"""
