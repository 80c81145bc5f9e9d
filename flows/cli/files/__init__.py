"""Commands on files and folders that need no pipeline of one's own."""
