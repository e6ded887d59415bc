"""Some of these tests reach read models over HTTP, in processes of their own."""

from tests.served import served

__all__ = ["served"]
