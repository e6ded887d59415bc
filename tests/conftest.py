"""On a CI machine nothing may be skipped: what cannot run there is a failure to be mended."""

import os
from collections.abc import Generator
from typing import TypeVar

import pytest

pytest.register_assert_rewrite("tests.served", "tests.openapi")
pytest_plugins = ["tests.database"]

Report = TypeVar("Report", pytest.TestReport, pytest.CollectReport)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    return _no_skip((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    return _no_skip((yield))


def _no_skip(report: Report) -> Report:
    # An expected failure reports itself as skipped too, but it did run, unless it is marked not to.
    expected = "[NOTRUN]" not in getattr(report, "wasxfail", "[NOTRUN]")
    if os.environ.get("CI", "").lower() in {"1", "true"} and report.skipped and not expected:
        report.outcome = "failed"
        report.longrepr = f"Skipped, and CI is set: {report.longrepr}"
    return report
