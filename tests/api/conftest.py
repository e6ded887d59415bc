"""Tests of the API reach it over HTTP, in processes of their own."""

import pytest

pytest.register_assert_rewrite("tests.served", "tests.openapi")

from tests.served import served, served_twice, shop  # noqa: E402 after what has to come before it

__all__ = ["served", "served_twice", "shop"]
