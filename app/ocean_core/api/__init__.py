"""The Litestar application: one controller per resource, problem details, OpenAPI."""
