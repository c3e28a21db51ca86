"""Usage: one ledger row for each image, and one counter for each key and UTC day."""
