"""What every command shares: options, tables, files, the machine's name, leaving."""
