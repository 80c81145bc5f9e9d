"""Layouts of training sets that come with melmill: every one that a module here defines is registered."""
