"""Edits of a frozen model: LoReFT and its algebra, LoRA, where they apply, how they hang on the blocks.

stiefel        matrices with orthonormal rows: QR retraction, polar factor, Procrustes alignment
loreft         the LoReFT edit, and a bank of many users' edits, stacked (U, L, r, d)
maps           edits and adapters as maps: inner products and distances, whatever axes they are written in
hooks          edits on decoder blocks for the length of a `with`, which leaves the model clean
positions      which tokens are edited: all, all-f1 (all but the first), prompt, last, fN+lM, under any padding
stack          layers of edits composed in order, each with its positions; which edit of each a row takes
steering       directions as edits, added at decoding at any dose
lora           PEFT's LoRA adapters on the shared base, one user's numbers at a time
pyreft_files   a user's edits as files that pyreft loads
easysteer_files   the same as EasySteer reads them, to be served by vLLM
"""
