"""Users and their accounts: sign-up, logins by token and by browser session, passwords, deletion, disabled accounts."""
