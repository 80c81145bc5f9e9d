"""Views of the results on the page: matrices, tables, and data that its script shows."""
