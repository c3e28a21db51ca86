"""From a prompt to a picture: the call that the platform exists for, and the address that shows its result."""
