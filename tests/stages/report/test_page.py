"""The report's page: complete, escaped, self-contained, the same every time."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pandas as pd
import pytest

from melmill.stages.report.contract import Example, Provenance, Tables
from melmill.stages.report.examples import pick, shown
from melmill.stages.report.stage import Aggregate
from melmill.stages.report.sweeps import arrange
from melmill.stages.report.tables import results
from melmill.stages.report.views.page_tables import Grid, by_group, headline, paired

EVIL = '<script>alert("x")</script>&\''
VOID = {"meta", "img", "br", "wbr", "link", "input"}


def scores_of(
    n: int = 12,
    nodes: Sequence[str] = ("gla", "admm"),
    metrics: Sequence[str] = ("pesq_wb", "scm_db"),
    speakers: int = 3,
) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    parts = []
    for node in nodes:
        frame: dict[str, Any] = {
            "utterance_id": [f"u{i:04d}" for i in range(n)],
            "subset": ["dev-clean" if i % speakers < speakers / 2 else "dev-other" for i in range(n)],
            "speaker_id": [str(i % speakers) for i in range(n)],
            "node": node,
            "duration_s": 2.0,
        }
        for metric in metrics:
            frame |= {metric: rng.normal(size=n), f"status_{metric}": "ok"}
        parts.append(pd.DataFrame(frame))
    return pd.concat(parts, ignore_index=True)


def failed(scores: pd.DataFrame, metric: str, status: str, rows: slice = slice(None)) -> pd.DataFrame:
    scores = scores.copy()
    chosen = scores.index[rows]
    scores.loc[chosen, metric] = np.nan
    scores.loc[chosen, f"status_{metric}"] = status
    return scores


def example_of(nodes: Sequence[str], seconds: float = 0.5, sr: int = 16000, text: str = "hello") -> Example:
    """Make an example of noise at -42 dB, which FLAC packs to 0.65, as speech with some noise."""
    rng = np.random.default_rng(1)
    n = int(sr * seconds)
    waves = {node: (0.008 * rng.normal(size=n)).astype(np.float32) for node in ("reference", *nodes)}
    return Example(
        utterance_id="u0003", text=text, why="median", sr=sr, reference=waves.pop("reference"), reconstructions=waves
    )


class Reader(HTMLParser):
    """Collects tags, attributes and text, and checks that elements nest."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("script", "style"):
            self.text.append(data)


def read(page: bytes) -> Reader:
    reader = Reader()
    reader.feed(page.decode())
    assert reader.open == []
    return reader


def page_of(tables: Tables, examples: Sequence[Example] = (), **settings: Any) -> bytes:
    return Aggregate(**settings).render(tables, examples)["index.html"]


def words(reader: Reader) -> str:
    return re.sub(r"\s+", " ", " ".join(reader.text))


def full_tables(name: str = "gla") -> Tables:
    nodes = (name, "admm")
    return Tables(
        scores=failed(scores_of(nodes=nodes), "pesq_wb", "timeout", slice(0, 2)),
        traces=pd.DataFrame({"utterance_id": "u", "node": name, "iteration": [0, 1, 2], "scm_db": [-1.0, -2.0, -3.0]}),
        quarantine=pd.DataFrame(
            {
                "utterance_id": [name],
                "node": ["speech"],
                "stage": ["librispeech"],
                "reason": [name],
                "detail": ["Trace"],
            }
        ),
        throughput=pd.DataFrame(
            {
                "node": [name, "x"],
                "shards": 1,
                "utterances": 12,
                "audio_s": 24.0,
                "compute_s": [1.0, 0.0],
                "wall_s": [2.0, 0.0],
                "busy_s": [0.5, float("nan")],
                "pool": ["gpu", name],
                "device": ["cuda", "cpu"],
                "peak_mem_bytes": [300 * 2**20, 0],
            }
        ),
        made=[
            Provenance(
                name=name, uses="griffin_lim", version=1, key="abc123" * 8, inputs=("mel",), parameters={"n_iter": name}
            )
        ],
        versions={"melmill": "0.1.0"},
        pipeline="round trip",
    )


def test_page_shows_every_section() -> None:
    text = words(read(page_of(full_tables(), [example_of(["gla", "admm"])], baseline="gla")))
    for expected in ("round trip", "Against gla", "By subset and speaker", "Convergence", "Listen", "Quarantine"):
        assert expected in text
    assert "× real time" in text
    assert "12.0 25% 300" in text  # 24 s of audio in 2 s, a device at work for 0.5 s of them
    assert "0.0 – – –" in text  # nothing was measured
    assert "n_iter: gla" in text
    assert "melmill 0.1.0" in text
    assert "never validated on generated speech" in text  # what PESQ can't say


def test_page_loads_nothing_from_elsewhere() -> None:
    reader = read(page_of(full_tables(), [example_of(["gla"])], baseline="gla"))
    for tag, attributes in reader.tags:
        assert tag not in ("link", "iframe", "object", "embed", "base")
        source = attributes.get("src")
        assert source is None or source.startswith("data:")
        for name in ("href", "xlink:href"):
            target = attributes.get(name)
            assert target is None or target.startswith("#")


def test_page_allows_its_own_script_alone() -> None:
    page = page_of(full_tables()).decode()
    (script,) = re.findall(r"<script>(.*?)</script>", page, flags=re.DOTALL)
    assert base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() in page
    assert "default-src 'none'" in page


def test_names_and_texts_are_escaped_everywhere() -> None:
    tables = full_tables(EVIL)
    tables.scores["speaker_id"] = EVIL
    tables.scores["subset"] = EVIL
    page = page_of(tables, [example_of([EVIL], text=EVIL)], baseline=EVIL, title=EVIL)
    reader = read(page)
    scripts = [attributes.get("type") for tag, attributes in reader.tags if tag == "script"]
    assert scripts.count(None) == 1  # the page's own; the others are data, which nothing runs
    assert set(scripts) == {None, "application/json"}
    assert words(reader).count('alert("x")') > 10
    assert not any(name.startswith("on") for _, attributes in reader.tags for name in attributes)


def test_page_is_the_same_every_time() -> None:
    files = [Aggregate(baseline="gla").render(full_tables(), [example_of(["gla", "admm"])]) for _ in range(2)]
    assert files[0] == files[1]


def test_page_of_one_node_and_one_utterance() -> None:
    reader = read(page_of(Tables(scores=scores_of(n=1, nodes=["only"], speakers=1))))
    assert "Against" not in words(reader)
    assert "best" not in [attributes.get("class") for tag, attributes in reader.tags if tag == "td"]


def test_baseline_alone_is_compared_with_nothing() -> None:
    page = page_of(Tables(scores=scores_of(nodes=["only"])), baseline="only")
    assert "No other node was scored" in words(read(page))


def test_a_metric_that_never_worked_says_why_and_shows_no_nan() -> None:
    scores = failed(scores_of(), "pesq_wb", "not_installed")
    text = words(read(page_of(Tables(scores=scores), [example_of(["gla"])], baseline="gla")))
    assert "not installed" in text
    assert not re.search(r"\bnan\b", text, flags=re.IGNORECASE)


def test_page_without_any_value_still_stands() -> None:
    scores = failed(scores_of(metrics=["pesq_wb"]), "pesq_wb", "crashed")
    assert "No measurement has a value" in words(read(page_of(Tables(scores=scores), baseline="gla")))
    assert pick(scores, 2) == []


def test_page_of_no_scores_at_all_still_stands() -> None:
    for scores in (scores_of().head(0), scores_of(metrics=[]), scores_of(metrics=[]).head(0)):
        assert "No measurement has a value" in words(read(page_of(Tables(scores=scores))))


def test_tables_read_as_categories_give_the_same_page() -> None:
    scores = failed(scores_of(), "pesq_wb", "timeout", slice(0, 2))
    scores.loc[5, "pesq_wb"] = np.inf
    categories = scores.astype(dict.fromkeys(("subset", "speaker_id", "node", "status_pesq_wb"), "category"))
    assert page_of(Tables(scores=categories)) == page_of(Tables(scores=scores))


def test_empty_ledger_and_traces_say_so_or_stay_away() -> None:
    text = words(read(page_of(Tables(scores=scores_of()))))
    assert "No utterance is in quarantine" in text
    assert "Every measurement has a value" in text
    assert "Convergence" not in text


def test_long_ledger_is_counted_whole_and_listed_in_part() -> None:
    ledger = pd.DataFrame(
        {
            "utterance_id": [f"q{i}" for i in range(500)],
            "node": "speech",
            "stage": "librispeech",
            "reason": ["is empty"] * 300 + ["r" * 1000] * 200,
            "detail": "Traceback",
        }
    )
    text = words(read(page_of(Tables(scores=scores_of(), quarantine=ledger))))
    assert "500 times" in text
    assert "q199" in text
    assert "q200" not in text
    assert "300 more, and all tracebacks, are in quarantine.csv" in text
    assert "r" * 301 not in text


def test_250_speakers_stay_small() -> None:
    scores = scores_of(
        n=500, nodes=[f"node{i}" for i in range(5)], metrics=["pesq_wb", "estoi", "scm_db"], speakers=250
    )
    page = page_of(Tables(scores=scores))
    assert len(page) < 500_000
    reader = read(page)
    assert "252 groups" in words(reader)
    assert not any(tag == "details" and "open" in attributes for tag, attributes in reader.tags)


def test_six_nodes_and_four_long_examples_fit_five_megabytes() -> None:
    nodes = [f"node{i}" for i in range(6)]
    page = page_of(Tables(scores=scores_of(nodes=nodes)), [example_of(nodes, seconds=10)] * 4)
    assert 3_000_000 < len(page) < 5_000_000
    assert "The first 3.2 s of 10.0 s" in words(read(page))


def test_examples_show_scores_or_why_there_is_none() -> None:
    scores = failed(scores_of(), "pesq_wb", "too_short")
    (one,) = shown([example_of(["gla", "unscored", "left out"])], scores, ["gla", "unscored"])
    recording, gla, unscored = one.takes
    assert (recording.node, recording.scores, recording.difference) == ("recording", (), "")
    assert gla.scores[0] == ("PESQ wide band", "too short")
    assert re.fullmatch(r"-?\d\.\d\d dB", gla.scores[1][1])
    assert unscored.scores == ()


def test_examples_at_another_rate_play_at_it_and_are_pictured_at_the_recordings() -> None:
    sent = example_of(["gla"])
    at_24k = Example(
        utterance_id="u0003",
        text="",
        why="",
        sr=16000,
        reference=sent.reference,
        reconstructions={"gla": np.zeros(12000, dtype=np.float32)},
        rates={"gla": 24000},
    )
    (one,) = shown([at_24k], scores_of(), ["gla"])
    assert one.axes.duration_s == 0.5
    assert one.takes[1].difference.startswith("data:image/png")


def test_picks_are_the_median_and_the_worst() -> None:
    scores = scores_of(n=5, metrics=["scm_db"])
    scores["scm_db"] = [-1.0, -5.0, -3.0, -4.0, -2.0] * 2
    assert [one.utterance_id for one in pick(scores, 2)] == ["u0002", "u0000"]
    assert pick(scores, 2)[1].why == "worst by SCM (-1.00, mean over 2 nodes)"
    assert [one.utterance_id for one in pick(scores, 3)] == ["u0000", "u0002", "u0001"]
    assert pick(scores, 0) == []


def test_picks_prefer_utterances_that_every_node_has() -> None:
    scores = scores_of(n=3, metrics=["scm_db"])
    scores["scm_db"] = [9.0, -3.0, -2.0, 9.0, -3.0, -2.0]
    scores = failed(scores, "scm_db", "timeout", slice(0, 1))
    assert [one.utterance_id for one in pick(scores, 2)] == ["u0001", "u0002"]


def rectangular(grid: Grid) -> bool:
    return all(len(row) == len(grid.columns) for row in grid.rows)


def test_every_row_of_a_table_has_a_cell_a_column() -> None:
    found = results(Tables(scores=scores_of()), by=("subset", "speaker"), baseline="gla", seed=0)
    assert found.paired is not None
    arrangement = arrange((), ["gla", "admm"], {})
    for grid in (headline(found, arrangement), paired(found.paired), *by_group(found, ("subset", "speaker"), ["gla"])):
        assert grid.rows
        assert rectangular(grid)


def test_a_mean_says_n_only_where_it_is_not_everywhere_the_same() -> None:
    whole = results(Tables(scores=scores_of()), by=(), baseline=None, seed=0)
    arrangement = arrange((), ["gla", "admm"], {})
    assert "12 utterances" in headline(whole, arrangement).caption
    assert not any(cell.small for row in headline(whole, arrangement).rows for cell in row)
    holed = results(Tables(scores=failed(scores_of(), "pesq_wb", "timeout", slice(0, 2))), by=(), baseline=None, seed=0)
    assert headline(holed, arrangement).rows[0][1].small == "n\u00a010, 2\u00a0failed\ncommon\u00a00.03"


def test_groups_are_ordered_as_people_count() -> None:
    found = results(Tables(scores=scores_of(n=24, speakers=12)), by=("speaker",), baseline=None, seed=0)
    assert [row[0].text for row in by_group(found, ("speaker",), ["gla"])[0].rows] == [str(i) for i in range(12)]


@pytest.mark.parametrize(
    ("differences", "verdict"), [([0.5, 0.6, 0.7], "better"), ([-0.5, -0.6, -0.7], "worse"), ([1.0, -1.0, 0.1], "open")]
)
def test_verdict_follows_the_interval(differences: list[float], verdict: str) -> None:
    scores = scores_of(n=3, metrics=["pesq_wb"])
    scores["pesq_wb"] = [2.0, 2.0, 2.0, *(2.0 + d for d in differences)]
    found = results(Tables(scores=scores), by=(), baseline="gla", seed=0)
    assert found.paired is not None
    (row,) = paired(found.paired).rows
    assert row[1].text == verdict
