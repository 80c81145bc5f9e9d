"""Between the store and files of other programs."""
