"""API keys: made once, shown once, kept as a hash, listed, revoked; and who is calling with one."""
