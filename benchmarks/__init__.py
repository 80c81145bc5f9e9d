"""What melmill achieves, measured; each module with a command says how to run it."""
