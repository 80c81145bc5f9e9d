"""Speech corpora to mel spectrograms and back, resumable, scored."""
