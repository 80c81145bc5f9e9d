"""The vocoder family `exported`."""
