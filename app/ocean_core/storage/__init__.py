"""Files of the data directory apart from the journal."""
