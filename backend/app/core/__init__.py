"""What every part stands on: settings, the database, errors, secrets, logs. It knows nothing of the product."""
