"""To be filled: gossip."""
