"""The vocoder family `univnet`."""
