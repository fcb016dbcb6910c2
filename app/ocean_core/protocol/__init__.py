"""Sans-IO codecs: bytes in, columns and refusals out. Knows no sockets, clocks or databases."""
