"""Means of edits, for the server's side of a federated round: by name (`average`), one file a mean.

average            the means by name
entrywise          FedAvg: the mean of every entry
svd                the mean of edits as affine maps, brought back to rank r
polar              the closest orthonormal rows to the mean of R, and the means of W − R and b
exact              the mean of edits as affine maps, of as many rows as it needs
principal_axes     a map's coordinates in the principal axes of all clients' maps
robust             krum, multikrum, trimmed, bulyan and median of maps
geometric_median   the geometric median of edits as affine maps (Weiszfeld), brought back to rank r
server_step        from the broadcast edit towards the mean: rate, momentum, Adam, Adagrad, Yogi
lora_svd           the mean of LoRA adapters as maps B A, brought back to rank r
"""
