"""Private tensors at rest: written, sealed, erased."""
