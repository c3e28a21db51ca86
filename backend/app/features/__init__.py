"""What the platform does, one folder each, always with the same files: api, schemas, service, dependencies."""
