"""To be filled: testing."""
