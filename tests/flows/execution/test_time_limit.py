"""The alarm that ends a process whose task takes too long."""

from __future__ import annotations

import faulthandler
import time

import pytest

from melmill.flows.execution import time_limit as module
from melmill.flows.execution.time_limit import time_limit
from melmill.flows.pipeline.spec import MAX_TIME_LIMIT_S


def test_a_limit_that_cannot_be_set_leaves_no_deadline_behind() -> None:
    with pytest.raises(OverflowError), time_limit(1e10):
        pytest.fail("the block must not begin")
    assert not module._deadlines
    # A deadline that stayed would stop every later block too.
    with time_limit(60.0):
        assert len(module._deadlines) == 1
    assert not module._deadlines


def test_an_interrupt_while_the_alarm_is_set_leaves_no_deadline_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(faulthandler, "dump_traceback_later", interrupted)
        with pytest.raises(KeyboardInterrupt), time_limit(0.05):
            pytest.fail("the block must not begin")
    time.sleep(0.1)
    assert not module._deadlines


def test_the_longest_limit_of_a_pipeline_can_be_set() -> None:
    # The child process of a task gets twice the limit.
    with time_limit(2 * MAX_TIME_LIMIT_S):
        assert len(module._deadlines) == 1
