"""Every byte: how edits travel, what crossed, and what it costs by analysis.

npy            an array's numbers from its bytes, without a word of their own about their size
wire           one edit as one flat array: dtype and size
quantization   numbers in 16, 8 or 4 bits, and entropy-coded: the bytes of a change of an edit
changes        the change from one edit to another, and what its bytes left out
on_device      what a device keeps of a narrow wire from one round to the next
ledger         every byte that crosses: user, phase, round, way
costs          what each method's tensors weigh, from a model's shapes alone
traffic        what that makes in training, storage and serving
published      published tables, computed again by the same functions
"""
