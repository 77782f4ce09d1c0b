"""The frozen base model: where it comes from, its device and dtype, its shapes, its memory.

files/           which files are read, whether all are there, how they come here
architecture/    what kind of model it is: the text model inside, its blocks, what its cache can serve
sources          where a base comes from: a hub id, a folder, a GGUF file, or `embedded`; its cache and fingerprint
model            the base that every user shares, loaded: weights and tokenizer
device           on which device and in which dtype it computes
skeleton         its shapes without its weights, on torch's meta device
facts            what is known of it without loading it: enough for a greeting
mapped_weights   its weights in the dtype of computing, mapped from one file: processes share the pages
tokens/          what pads and ends its texts, and its chat template
random_base      bases of random weights: the tests' tiny one, and published shapes to time
gpu_kernels      liger-kernel's fused blocks on a GPU, where it is installed
host_memory      glibc's allocator and oneDNN's kernels, bounded: freed memory goes back
__main__         `python -m fed.base [SOURCE]`: find a base, make its files ready, say what it is
"""
