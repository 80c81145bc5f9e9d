"""What goes with mels in a recipe: pitch, energy, durations, voices and statistics."""
