"""Health: the process answers, it can serve, its metrics, and where vulnerabilities are reported."""
