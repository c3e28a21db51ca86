"""Accounts: registration, logins by token and in browsers, whose they are, and how they are ended."""
