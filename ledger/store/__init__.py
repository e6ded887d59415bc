"""The log: events, guards and claims, written whole or not at all."""
