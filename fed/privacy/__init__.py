"""Private tensors at rest: written, sealed, erased.

vault          where a device keeps its private tensors and the collective edit it was given
writing        private edits into a vault, many users' with one wait for the disk
user_files     a user's folder, and what is kept there beside the private edit
entries        a user's entries, one a use: which files they are, what their headers say
collectives    the collective edits, each kept as long as an entry needs it
versions       which version of a sealed file was written last
tensor_files   tensors in files: encoded, written by rename, read back checked
sealed         AES-256-GCM under a key file or a passphrase, with an authenticated header
rotation       sealed files under another secret
wipe           overwrite, sync and unlink: a file, a folder, all that a vault made
"""
