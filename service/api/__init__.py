"""HTTP API: routes by resource, schemas, middleware, errors."""
