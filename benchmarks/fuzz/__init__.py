"""Search for inputs that melmill answers with a traceback, a hang or a wrong result."""
