"""A fleet of sensors that behave as sensors do, sent over HTTP and audited: `ocean simulate`."""
