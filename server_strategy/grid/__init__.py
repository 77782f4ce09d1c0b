"""The SuperNodes as the server sees them: who they are, users shown as nodes, many users a message, bytes counted."""
