"""The files of a base model: which are read, whether all are there, and how they come here.

refusal          the error of a base that is not there, not whole, or not to be edited
whole            a folder is whole or refused: configuration, every weight, a tokenizer
safetensors      a weight file's header: what tensors it holds, and that it is not cut short
hub              a hub id's folder: exactly the files that are read, fetched once, resumed
gguf             a GGUF file, in one piece or in parts
dequantized      that file as a folder of bf16 safetensors in the cache
cache            of derived files: from which ones, and made by one process at a time
quiet            transformers without bars and advice while it loads
"""
