"""The error budget: how much of what a mel loses is due to what, with its demonstrations."""
