"""The `ocean` commands, thin: they parse, call, print."""
