"""What every part stands on: settings, the database, errors, secrets, logs, metrics. It imports no other part of the
program, and no web framework.
"""
