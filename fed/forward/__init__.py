"""Forward passes that many users share: rows and batches, losses of completions, states kept for later passes.

tokenization       a prompt and its completion as one text, and its tokens: BOS, the seam, the end; chat turns
batching           rows of tokens, each user's own minibatches, shared batches under a token budget
budget             how much a forward pass may take
completion_loss    the loss from logits at completion tokens alone
hidden_states      a block's output in the bare base; what lies above it is not computed
activation_cache   rows' states below the first trained edit, computed once
prefix_cache       keys and values of a prompt's beginning, read once where the trained edit leaves it untouched
"""
