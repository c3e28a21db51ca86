"""API keys: created, shown once, stored as a hash, listed and revoked; and the caller that a key belongs to."""
