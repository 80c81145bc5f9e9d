"""Tables that views put below one another."""

from __future__ import annotations

import pandas as pd

from melmill.storage.reading.views import trust


def test_two_nodes_that_damaged_the_same_recordings_both_stay() -> None:
    def table(metric: str) -> pd.DataFrame:
        return pd.DataFrame(
            {"utterance_id": ["u0"], "damage": ["none"], "step": [0.0], metric: [1.0], f"status_{metric}": ["ok"]}
        )

    frames = {"a-trust": table("sc_db"), "b-trust": table("estoi")}
    both = trust(frames, dict.fromkeys(frames, "speech"))
    assert both["node"].tolist() == ["a-trust", "b-trust"]
    assert both.columns[-4:].tolist() == ["sc_db", "estoi", "status_sc_db", "status_estoi"]
    apart = trust(frames, {"a-trust": "speech", "b-trust": "mine"})
    assert apart["node"].tolist() == ["speech", "mine"]
