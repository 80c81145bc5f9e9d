"""The vocoder family `hifigan`."""
