"""Signal processing: STFT, mel, phase and the iterative inverters."""
