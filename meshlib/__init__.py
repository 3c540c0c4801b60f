"""Replicas that share state without a store."""
