"""To be filled: aio."""
