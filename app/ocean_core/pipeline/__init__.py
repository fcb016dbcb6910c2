"""How readings get from the journal into analytics: mover, rollups, live window."""
