"""A small corpus, its pipeline, and the bytes that an undisturbed serial run makes of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.flows.conftest import Project, flac, make_project, voice

STAGES = """\
name: test
store: {store}
shard_duration_s: 2
stages:
  speech: {{uses: librispeech, root: {root}}}
  mel:    {{uses: extract, from: speech}}
  gla:    {{uses: griffin_lim, from: mel, n_iter: 2}}
"""
UTTERANCES = {"11": [flac(voice(0.8 + 0.1 * i, 110.0 + 5 * i, seed=i)) for i in range(6)]}


def on(cluster: str) -> str:
    """Return the pipeline with a `cluster:` block as YAML."""
    return STAGES + "cluster: " + cluster.replace("{", "{{").replace("}", "}}")


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return make_project(tmp_path, UTTERANCES, STAGES)


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    made = make_project(tmp_path_factory.mktemp("undisturbed"), UTTERANCES, STAGES)
    made.run("--executor", "serial")
    return made.bytes()
