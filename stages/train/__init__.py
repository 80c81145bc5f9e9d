"""Training of vocoders: generators, discriminators, losses, and the loop."""
