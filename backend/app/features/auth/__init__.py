"""Accounts: registration, login, the token that a login gives, and who the token belongs to."""
