"""One job, done by the product and the way a user would write it: time, processor time, memory, losses.

plain     the plain way: Flower's own example, the base loaded in each message, users and answers one by one
here      the job in one process, by either, without Flower's transport and without Ray
watched   a command, and what all its processes take: seconds, processor seconds, memory
outcome   tables, ratios and losses of finished turns
"""
