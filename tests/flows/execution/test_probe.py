"""What workers say of the tasks that they run."""

from __future__ import annotations

import pytest
from distributed import Client, LocalCluster

from melmill.flows.execution.probe import probe_workers


def test_a_client_that_lost_its_scheduler_is_told_as_one_that_gets_no_answer() -> None:
    with LocalCluster(n_workers=0, dashboard_address=None, protocol="tcp") as cluster, Client(cluster) as client:
        assert probe_workers(client, {}) == []
        client.sync(client._close)
        assert client.scheduler is None
        with pytest.raises(TimeoutError, match="lost its connection to the scheduler"):
            probe_workers(client, {})
