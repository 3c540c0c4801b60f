"""Conflict-free replicated data types, as join-semilattices with deltas."""
