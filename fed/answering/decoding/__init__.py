"""Text under each row's own edits, greedy or drawn.

generate       rows in batches, one token a step, until each has ended
steps          the pass of a step, over one new token a row, after what the cache has read
static_steps   the same in buffers of full length, which a GPU replays as one CUDA graph
"""
