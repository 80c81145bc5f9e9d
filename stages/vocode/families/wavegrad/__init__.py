"""The vocoder family `wavegrad`."""
