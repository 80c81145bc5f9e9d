"""Compiled passes of metrics: those of STOI and ESTOI, of M-STFT, and dynamic time warping."""
