"""What a run leaves: report.json, tables for the terminal, charts and a page."""
