"""The log: appending, loading, stored names, the hash chain and the keys of personal data."""
