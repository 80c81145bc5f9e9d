"""What lies before and behind a mel bank: steps on the waveform, normalisations, presets."""
