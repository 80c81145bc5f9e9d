"""What a scheduler that serves many runs remembers of them."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

from distributed import Client, LocalCluster, get_worker

from melmill.cluster.scheduler import TOPIC, bound_memory, publisher, topic_of


def say(topic: str) -> None:
    get_worker().log_event(topic, "something")


def until(condition: Callable[[], bool]) -> None:
    """Wait until a condition holds, 20 s at most."""
    end_s = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end_s
        time.sleep(0.05)


def test_messages_to_clients_that_are_gone_are_forgotten() -> None:
    with LocalCluster(n_workers=1, processes=False, dashboard_address=None) as cluster:
        topics = cluster.scheduler._broker._topics
        heard: list[str] = []

        def mine() -> set[str]:
            return {topic for topic in topics if topic.startswith("melmill-")}

        def heard_so_far(n: int) -> bool:
            return len(heard) == n

        def client() -> Client:
            made = Client(cluster, set_as_default=False)
            bound_memory(made)
            publisher(made)({"run": made.id, "project": "x", "alive": False, "times_real_time": 0, "nodes": {}})
            made.subscribe_topic(topic_of(made.id), lambda event: heard.append(event[1]))
            made.submit(say, topic_of(made.id), pure=False).result()
            return made

        with client() as stays:
            for n in range(1, 4):
                with client() as leaves:
                    until(partial(heard_so_far, n + 1))
                    gone = topic_of(leaves.id)
                    assert {TOPIC, topic_of(stays.id), gone} <= mine()
                until(lambda: mine() == {TOPIC, topic_of(stays.id)})
                # A worker may go on for a while. What it tells then goes with the next that leaves.
                stays.submit(say, gone, pure=False).result()
                until(partial(topics.__contains__, gone))
            with client():
                pass
            until(lambda: mine() == {TOPIC, topic_of(stays.id)})
            stays.submit(say, topic_of(stays.id), pure=False).result()
            until(partial(heard_so_far, 6))
