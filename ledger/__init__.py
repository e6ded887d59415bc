"""The write side: decides requests and records what happened as immutable events."""
