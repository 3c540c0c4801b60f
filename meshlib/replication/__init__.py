"""To be filled: replication."""
