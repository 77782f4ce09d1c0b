"""Means of edits, for the server's side of a federated round: by name (`average`), one file a mean.

average            the means by name
entrywise          FedAvg: the mean of every entry
svd                the mean of edits as affine maps, brought back to rank r
geometric_median   the geometric median of edits as affine maps (Weiszfeld), brought back to rank r
lora_svd           the mean of LoRA adapters as maps B A, brought back to rank r
"""
