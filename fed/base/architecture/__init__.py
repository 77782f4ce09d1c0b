"""What kind of model a base is: the text model inside, its decoder blocks, what its cache can serve.

text_model          reads a causal LM from a folder or refuses it: its class, its decoder, its blocks, its tokenizer
cache_kinds         which features the base's cache of keys, values and states can serve; the others are left out
grouped_attention   attention on a CPU whose numbers hang on a row alone: not on padding, neighbours or threads
"""
