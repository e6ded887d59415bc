"""The log: appending, loading, stored names, the hash chain and the keys of personal data."""

END_OF_LOG = 2**62
"""A position after every event, and a version after every one of a stream."""
