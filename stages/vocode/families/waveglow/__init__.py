"""The vocoder family `waveglow`."""
