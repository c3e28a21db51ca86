"""HTTP, done once: what every request passes, how bodies come in, and what all answers have in common."""
