"""From mel spectrograms to waveforms by signal processing."""
