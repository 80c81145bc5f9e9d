"""Objects of one kind, found in a folder and by entry points."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import EntryPoint

import pytest

from melmill.stages import plugins
from melmill.stages.formats.format import FORMATS
from melmill.stages.ingest.reader import READERS
from melmill.stages.numeric.errors import StageError
from melmill.stages.plugins import Registry
from melmill.stages.registry import stage_class, stage_names
from melmill.stages.score.metric import METRICS, Metric, metric
from melmill.stages.score.metrics.stoi import STOI

GROUP = "melmill.metrics"


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Registry[Metric]]:
    """Return a function that gives a registry of metrics some entry points."""

    def installed(**entries: str) -> Registry[Metric]:
        found = [EntryPoint(name, value, GROUP) for name, value in entries.items()]
        monkeypatch.setattr(plugins, "entry_points", lambda group: found if group == GROUP else [])
        return Registry(
            "metric",
            package="melmill.stages.score.metrics",
            group=GROUP,
            is_one=lambda value: isinstance(value, Metric),  # type: ignore[arg-type]
            name_of=lambda one: one.name,
            order=lambda one: (one.order, one.name),
        )

    return installed


def test_what_comes_with_melmill_is_found() -> None:
    # Those in the folders of the folder too.
    assert list(READERS) == sorted(READERS)
    assert {"audio_folder", "librispeech", "mel_folder", "vctk", "kaldi"} < READERS.keys()
    assert len(READERS) == 21
    assert list(FORMATS) == ["flac", "wav", "npy"]
    assert len(METRICS) == 38
    assert METRICS["stoi"] is STOI
    assert set(READERS) <= set(stage_names())
    assert stage_class("librispeech") is READERS["librispeech"]


def test_names_of_other_packages_follow_and_never_hide_melmills(install: Callable[..., Registry[Metric]]) -> None:
    registry = install(zcr="no.such.module:ZCR", stoi="no.such.module:STOI")
    assert list(registry)[-1] == "zcr"
    assert len(registry) == 39
    assert registry["stoi"] is STOI
    assert registry.unknown("zrc").startswith("no metric 'zrc'; did you mean 'zcr'? (metrics: pesq_wb, ")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("no.such.module:ZCR", "the entry point 'zcr' = 'no.such.module:ZCR' .* can't be loaded: ModuleNotFoundError"),
        ("math:pi", "must be a metric, got 3.14"),
        ("melmill.stages.score.metrics.stoi:STOI", "must have the name of its metric, which is 'stoi'"),
    ],
)
def test_an_entry_point_that_will_not_do_is_one_error(
    install: Callable[..., Registry[Metric]], value: str, message: str
) -> None:
    with pytest.raises(StageError, match=message):
        install(zcr=value)["zcr"]


def test_a_metric_is_found_by_its_column_too() -> None:
    assert metric("scm_db") is metric("scm") is METRICS["scm"]
