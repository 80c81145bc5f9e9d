"""Stages that prepare a corpus: waveforms in, waveforms out, and every sample is kept or has a reason."""
