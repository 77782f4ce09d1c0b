"""Local training of one or many users' edits.

train           training of one or many users' edits on the frozen base, in shared batches
gradients       the gradient of every user's minibatch, from forward passes that users share
plan            how one stage trains a user, and what one user's training did
optimizer       AdamW for stacked users, each as if alone; the axes in which R is stepped
one_user        the loop of engines that train users one after the other (pyreft, PEFT)
pyreft_engine   the same training by pyreft itself, the reference (engine="pyreft")
"""
