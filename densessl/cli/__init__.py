"""The command lines: words to settings or to one call, and exit codes."""
