"""Every byte: how edits travel, what crossed, and what it costs by analysis."""
