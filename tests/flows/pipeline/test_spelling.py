"""Short forms: `trust: true` and `oracle` mean the nodes that one would write out."""

from __future__ import annotations

from pathlib import Path

import pytest

from melmill.flows.pipeline.errors import PipelineError
from melmill.flows.pipeline.graph import Node, build_graph
from melmill.flows.pipeline.spec import read

HEAD = "name: test\nstore: runs/test\nstages:\n  speech: {{uses: audio_folder, root: {root}, sr: 16000}}\n"
MEL = "  mel: {uses: extract, from: speech}\n  gla: {uses: griffin_lim, from: mel}\n"


def graph(text: str, tmp_path: Path) -> dict[str, Node]:
    return build_graph(read(HEAD.format(root=tmp_path) + text, "p.yaml"))


def test_trust_is_a_node_on_the_recordings_that_reports_read(tmp_path: Path) -> None:
    nodes = graph(
        MEL + "  scores: {uses: score, from: gla, against: speech, metrics: [sc, mcd], preset: paper, trust: true}\n"
        "  report: {uses: aggregate, from: scores}\n",
        tmp_path,
    )
    trust = nodes["scores-trust"]
    assert (trust.stage.uses, trust.inputs) == ("trust", {"from": ("speech",)})
    assert trust.parameters["metrics"] == ["sc", "mcd"]
    assert nodes["report"].inputs["from"] == ("scores", "scores-trust")


def test_trust_changes_no_score_and_equals_what_is_written_out(tmp_path: Path) -> None:
    score = "  scores: {{uses: score, from: gla, against: speech, metrics: [sc]{}}}\n"
    plain = graph(MEL + score.format(""), tmp_path)
    short = graph(MEL + score.format(", trust: true"), tmp_path)
    written = graph(MEL + score.format("") + "  scores-trust: {uses: trust, from: speech, metrics: [sc]}\n", tmp_path)
    assert plain["scores"].key == short["scores"].key
    assert short["scores-trust"].key == written["scores-trust"].key
    assert "scores-trust" not in plain


def test_several_systems_share_one_trust(tmp_path: Path) -> None:
    nodes = graph(
        MEL + "  pghi: {uses: pghi, from: mel}\n"
        "  scores: {uses: score, from: [gla, pghi], against: speech, metrics: [sc], trust: true}\n",
        tmp_path,
    )
    assert [name for name, node in nodes.items() if node.stage.uses == "trust"] == ["scores-trust"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("  scores: {uses: score, from: gla, metrics: [dnsmos_ovrl], trust: true}\n", "needs recordings to damage"),
        (
            "  scores: {uses: score, from: gla, against: speech, trust: true}\n"
            "  scores-trust: {uses: pghi, from: mel}\n",
            "makes a node 'scores-trust', and there is one already",
        ),
        ("  scores: {uses: score, from: gla, against: speech, trust: maybe}\n", "trust"),
        ("  scores: {uses: trust, from: speech, utterances: 3}\n", "utterances must be at least 6"),
        ("  scores: {uses: trust, from: speech, damages: [nois]}\n", "damages must be of phase"),
        ("  scores: {uses: trust, from: mel}\n", "takes waveform"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(text: str, problem: str, tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match=rf"p\.yaml:\d+: .*{problem}"):
        graph(MEL + text, tmp_path)


def test_oracle_is_the_node_of_the_recordings(tmp_path: Path) -> None:
    method = "  admm: {{uses: admm, from: mel, n_iter: 5, start: {}}}\n"
    assert graph(MEL + method.format("oracle"), tmp_path)["admm"].inputs["start"] == ("speech",)
    by_name = graph(MEL + method.format("speech"), tmp_path)["admm"].key
    assert graph(MEL + method.format("oracle"), tmp_path)["admm"].key == by_name
    fanned = graph(MEL + method.format("[oracle, pghi]"), tmp_path)
    assert fanned["admm[start=speech]"].key == by_name
    assert "admm[start=pghi]" in fanned


def test_a_node_called_oracle_is_meant_itself(tmp_path: Path) -> None:
    nodes = graph(MEL + "  oracle: {uses: pghi, from: mel}\n  admm: {uses: admm, from: mel, start: oracle}\n", tmp_path)
    assert nodes["admm"].inputs["start"] == ("oracle",)


def test_an_oracle_needs_recordings(tmp_path: Path) -> None:
    text = "  mels: {uses: mel_folder, root: " + str(tmp_path) + ", preset: paper}\n"
    with pytest.raises(PipelineError, match=r"p\.yaml:\d+: .*start of 'admm'"):
        graph(text + "  admm: {uses: admm, from: mels, start: oracle}\n", tmp_path)
