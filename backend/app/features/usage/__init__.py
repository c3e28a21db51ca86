"""What a key is used for is kept here: one ledger row per picture, one counter per key and UTC day."""
