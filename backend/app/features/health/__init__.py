"""Health: the process answers, it can serve, and its metrics."""
