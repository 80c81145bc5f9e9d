"""Care for runs and their store."""
