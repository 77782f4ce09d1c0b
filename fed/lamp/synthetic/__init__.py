"""Users who are made up, with habits that are known: a data set for whoever has none."""
