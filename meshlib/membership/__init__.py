"""To be filled: membership."""
