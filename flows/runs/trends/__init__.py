"""How scores went over the runs of stores: series, change points, a page, and files for other tools."""
