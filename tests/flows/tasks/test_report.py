"""Report stages of other packages: what they are given, and what they must return."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest

from melmill.flows.execution.run import run
from melmill.flows.execution.summary import Summary
from melmill.flows.pipeline.spec import load
from melmill.flows.planning.plan import make_plan
from melmill.flows.watching.events import Event, Failed
from melmill.flows.watching.observers import Watching
from melmill.stages import registry
from melmill.stages.contract import Input, Kind, Product, Report
from melmill.stages.report.contract import ReportData, ReportFiles
from tests.flows.conftest import Project

PIPELINE = """\
name: test
store: {store}
shard_duration_s: 3
stages:
  speech: {{uses: librispeech, root: {root}}}
  mel:    {{uses: extract, from: speech}}
  gla:    {{uses: griffin_lim, from: mel, n_iter: 2, trace: true}}
  scores: {{uses: score, from: gla, against: speech, metrics: [sc]}}
  facts:  {{uses: facts, from: scores}}
"""


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Return what `returns` says, and count what the data holds."""

    uses: ClassVar[str] = "facts"
    version: ClassVar[int] = 1
    inputs: ClassVar[Mapping[str, Input]] = {"from": Input(kinds=frozenset({Kind.SCORES}), many=True)}

    returns: str = "all"
    asks_for: str = "11-1-0003"

    def identity(self) -> Mapping[str, Any]:
        return {"returns": self.returns, "asks_for": self.asks_for}

    def produces(self, inputs: Mapping[str, Sequence[Product]]) -> Product:
        return Report()

    def report(self, data: ReportData) -> ReportFiles:
        example = data.example(self.asks_for)
        assert example is not None
        facts = [
            f"{data.pipeline} {','.join(node.name for node in data.provenance)}",
            f"{len(data.scores)} {len(data.traces)} {len(data.quarantine)} {len(data.throughput)}",
            f"{example.sr} {example.reference.size} {sorted(example.reconstructions)} {sorted(data.versions)[0]}",
        ]
        page = {} if self.returns == "no page" else {"index.html": "\n".join(facts).encode()}
        return ReportFiles(files=page, headline="" if self.returns == "no headline" else "a,b\n1,2\n")


@pytest.fixture
def project(project: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.setattr(registry, "_installed", lambda: {"facts": SimpleNamespace(load=lambda: Facts)})
    project.write(PIPELINE)
    return project


def done(project: Project, *overrides: str) -> tuple[Summary, list[str]]:
    """Return the summary of a run, and the errors of its tasks."""
    errors: list[str] = []

    def listen(event: Event) -> None:
        if isinstance(event, Failed):
            errors.append(f"{type(event.error).__name__}: {event.error}")

    made = make_plan(load(project.pipeline, overrides))
    return run(made, "serial", watching=Watching(listeners=(listen,))), errors


def test_a_report_reads_all_that_led_to_it(project: Project) -> None:
    summary, errors = done(project)
    assert not errors
    assert summary.report is not None
    n_samples = int(0.8 * 16000)
    assert Path(summary.report).read_text().splitlines() == [
        "test speech,mel,gla,scores",
        "16 48 0 4",
        f"16000 {n_samples} ['gla'] melmill",
    ]
    assert Path(summary.report).with_name("headline.csv").read_text() == "a,b\n1,2\n"
    assert done(project)[0].tasks.run == 0


# One row for each way in which a report stage fails.
@pytest.mark.parametrize(
    ("override", "error"),
    [
        ("facts.returns=no page", "StageError: stage 'facts': report() must return a file 'index.html', got []"),
        ("facts.returns=no headline", "StageError: stage 'facts': report() must return a headline of CSV"),
        ("facts.asks_for=nobody", "ValueError: 'nobody' is not an utterance of the scored corpora"),
    ],
)
def test_a_report_that_fails_is_given_up_and_made_by_the_next_run(project: Project, override: str, error: str) -> None:
    summary, errors = done(project, override)
    assert summary.tasks.failed == 1
    assert summary.report is None
    assert len(errors) == 1
    assert errors[0].startswith(error)
    again, _ = done(project)
    assert (again.tasks.run, again.tasks.failed) == (1, 0)
