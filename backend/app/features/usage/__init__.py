"""Usage: what the counters say, one for each key, model and UTC day, and reports of it."""
