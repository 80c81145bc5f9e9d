"""The vocoder family `bigvgan`."""
