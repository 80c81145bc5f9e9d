"""Exchange formats that come with melmill: every one that a module here defines is registered."""
