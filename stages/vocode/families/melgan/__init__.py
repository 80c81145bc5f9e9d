"""The vocoder family `melgan`."""
