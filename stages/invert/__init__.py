"""Waveforms from mel spectrograms, by signal processing."""
