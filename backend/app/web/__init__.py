"""HTTP, done once for all features: connections, overload, middleware, bodies, lists in pages, error responses."""
