"""Edits of a frozen model: LoReFT and its algebra, LoRA, where they apply, how they hang on the blocks."""
