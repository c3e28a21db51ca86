"""How limits are written in settings, on the command line and in the database: `600/minute`, and `100` at a time."""

WINDOW_SECONDS = {"second": 1, "minute": 60, "hour": 3600, "day": 86_400}

NUMBER_PATTERN = "[1-9][0-9]{0,6}"
LIMIT_PATTERN = f"{NUMBER_PATTERN}/({'|'.join(WINDOW_SECONDS)})"
"""Regular expressions for the whole text, in syntax that Python, pydantic and PostgreSQL share."""

CONCURRENCY_MAX = 1_000_000
