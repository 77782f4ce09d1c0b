"""What finished cells say: rows, intervals, tables, figures."""
