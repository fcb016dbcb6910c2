"""Clock, log events and metrics: what every layer may use to tell of itself."""
