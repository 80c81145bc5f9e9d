"""The readers that come with melmill: every `Reader` with a name that a module here defines is a stage."""
