"""To be filled: state."""
