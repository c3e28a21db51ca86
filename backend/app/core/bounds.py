"""Bounds of a request that more than one layer reckons with."""

BODY_SECONDS_MAX = 10
"""In which a body must have arrived: a request whose body never comes would keep a slot from others."""
