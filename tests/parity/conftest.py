"""Parity with the reference: no case is left out in silence.

With `MTVCRAFT_GOLDEN` set, nothing here may skip. A table that a golden lacks is no case and not a skipped one, so the
placeholders that pytest makes for empty lists of cases are dropped.
"""

import os
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items[:] = [item for item in items if not (HERE in item.path.parents and _stands_for_no_case(item))]


def _stands_for_no_case(item: pytest.Item) -> bool:
    return any("got empty parameter set" in mark.kwargs.get("reason", "") for mark in item.iter_markers("skip"))


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]):
    outcome = yield
    report = outcome.get_result()
    if os.environ.get("MTVCRAFT_GOLDEN") and report.skipped:
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped though MTVCRAFT_GOLDEN is set"
