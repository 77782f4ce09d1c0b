"""What a base's tokenizer brings besides tokens.

special_ids     what pads a row, what ends a text, which ids have no embedding
chat_template   the tokenizer's own chat template, taken apart around a question and its answer
"""
