"""How programs talk to a server: HTTP with safe repeats, and errors as the server meant them."""
