"""Flower's Grid, wrapped: what stands between the rounds and the SuperNodes.

wrapper      a Grid that hands everything on to another
reading      replies off the network, read one by one: what breaks Flower's reader is one node's error
supervised   a deadline over the whole run, and a second try where a node's process died
"""
