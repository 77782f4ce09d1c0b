"""Forward passes that many users share: rows and batches, losses of completions, states kept for later passes.

tokenization       a prompt and its completion as one text, and its tokens: BOS, the seam, the end; chat turns
batching           rows of tokens, each user's own minibatches, shared batches under a token budget
budget             how much a forward pass may take
completion_loss    the loss from logits at completion tokens alone
last_logits        the logits after each row's last token
resumed            passes that begin at a block's output, whose states are handed in
hidden_states      a block's output; what lies above it is not computed
shared_states      states that several arms of a row share, computed once
activation_cache   rows' states below the first trained edit, computed once
prefix_cache       keys and values of a prompt's beginning, read once where the trained edit leaves it untouched
"""
