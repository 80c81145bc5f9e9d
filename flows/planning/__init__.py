"""What a run will do and why, and how long it will take."""
