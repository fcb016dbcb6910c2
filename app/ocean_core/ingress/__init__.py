"""How bytes come in: connections, their limits, and who must wait or go."""
