"""The rows of a catalogue: parts on disk and new ones, how they are packed, and what changed since."""
