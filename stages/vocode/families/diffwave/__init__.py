"""The vocoder family `diffwave`."""
