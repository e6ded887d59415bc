"""The tests, and the tools that only tests and checks need."""
