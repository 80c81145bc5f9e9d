"""The vocoder family `wavenet`."""
