"""From a prompt to an image: the call that the platform exists for, and the address that shows its result."""
