"""One folder for each vocoder family."""
