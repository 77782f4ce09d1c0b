"""What a device says for itself: its own config, and its own rules applied to every message.

node_config   what a SuperNode is told where it runs, checked
protection    the one place through which every message passes, in and out
"""
