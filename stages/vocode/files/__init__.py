"""The files of vocoders: checkpoints, and what lies beside them."""
