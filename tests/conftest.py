"""What all tests share: real clusters that end with the test, and what their nodes said when it fails."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator

import pytest

from tests.faults.cluster import Cluster

_clusters = pytest.StashKey[list[Cluster]]()


@pytest.fixture
def new_cluster(request: pytest.FixtureRequest) -> Iterator[Callable[..., Cluster]]:
    """Make clusters (not started); all their processes and files go with the test."""
    clusters = request.node.stash[_clusters] = []

    def make(size: int, *flags: str) -> Cluster:
        clusters.append(Cluster(size, *flags))
        return clusters[-1]

    yield make
    for cluster in clusters:
        cluster.close()


@pytest.fixture
def three_nodes(new_cluster: Callable[..., Cluster]) -> Cluster:
    return new_cluster(3).start()


@pytest.fixture
def figure(record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    """Say what was measured: shown at the end of the run, passed or failed."""
    return lambda text: record_property("figure", text)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    figures = [
        value
        for outcome in ("passed", "failed")
        for report in terminalreporter.getreports(outcome)
        if report.when == "call"
        for name, value in report.user_properties
        if name == "figure"
    ]
    if figures:
        terminalreporter.section("figures")
        for text in figures:
            terminalreporter.line(text)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed and call.when != "teardown":
        for cluster in item.stash.get(_clusters, []):
            report.sections.extend(cluster.transcript())
    return report
