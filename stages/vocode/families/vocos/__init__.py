"""The vocoder family `vocos`."""
