"""The vocoder family `unfolded`."""
