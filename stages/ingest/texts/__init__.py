"""Texts of a corpus: how their files are decoded, how tables are read, and whose text each is."""
