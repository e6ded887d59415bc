"""Tests of the API reach it over HTTP, in processes of their own."""

from tests.served import served, served_twice, shop

__all__ = ["served", "served_twice", "shop"]
