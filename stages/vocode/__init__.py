"""Neural vocoders: published checkpoints as they lie on disk, behind one contract."""
