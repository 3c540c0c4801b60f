"""To be filled: prefix."""
