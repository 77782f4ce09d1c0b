"""The frozen base model: where it comes from, its device and dtype, its shapes, its memory."""
