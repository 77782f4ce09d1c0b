"""One job, done by the product and the way a user would write it: time, processor time, memory, losses.

plain     the plain way: Flower's own example, the base loaded in each message, users and answers one by one
watched   a command, and what all its processes take: seconds, processor seconds, memory
outcome   tables, ratios and losses of finished turns
"""
