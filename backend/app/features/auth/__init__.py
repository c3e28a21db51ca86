"""Accounts: registration, logins by token and by browser session, their owner, their end, and disabled accounts."""
