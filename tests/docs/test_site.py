"""`make docs` builds a site that needs nothing from elsewhere and has no broken link."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from melmill.flows.execution.run import run
from melmill.flows.pipeline.spec import load
from melmill.flows.planning.plan import make_plan

ROOT = Path(__file__).parents[2]
pytest.importorskip("mkdocs", reason="the extra docs is not installed")
pytestmark = pytest.mark.slow  # builds the site


def build(config: Path, site: Path, gallery: Path) -> subprocess.CompletedProcess[str]:
    """Build a site as `make docs` does."""
    return subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--config-file", config, "--site-dir", site],
        cwd=ROOT, env={**os.environ, "MELMILL_GALLERY": str(gallery), "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the store of a small run with scores."""
    folder = tmp_path_factory.mktemp("gallery")
    for name, frequency in (("a", 220), ("b", 330)):
        soundfile.write(folder / f"{name}.wav", 0.5 * np.sin(np.arange(8000) * frequency / 2500), 16000)
    pipeline = folder / "pipeline.yaml"
    pipeline.write_text(
        f"name: gallery\nstore: {folder}/store\nstages:\n"
        f"  speech: {{uses: audio_folder, root: {folder}, files: '*.wav'}}\n"
        "  mel: {uses: extract, from: speech}\n"
        "  gla: {uses: griffin_lim, from: mel, n_iter: [1, 2]}\n"
        "  scores: {uses: score, from: gla, against: speech, metrics: [scm]}\n"
    )
    run(make_plan(load(pipeline)), "serial")
    return folder / "store"


@pytest.fixture(scope="module")
def site(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the site, built once."""
    folder = tmp_path_factory.mktemp("site")
    done = build(ROOT / "mkdocs.yml", folder, store)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def test_every_page_is_in_the_site(site: Path) -> None:
    for page in (ROOT / "docs").glob("*.md"):
        assert (site / f"{page.stem}.html").stat().st_size > 5000, page.name


def test_nothing_is_fetched_from_elsewhere(site: Path) -> None:
    for page in site.rglob("*.html"):
        assert not re.findall(r'<(?:script|img|link|audio|source)[^>]*(?:src|href)="?https?:', page.read_text()), page


def test_files_of_the_repository_are_in_the_site(site: Path) -> None:
    assert (site / "files/cluster/deploy/melmill.sbatch").read_bytes() == (
        ROOT / "cluster/deploy/melmill.sbatch"
    ).read_bytes()
    assert 'href="files/cluster/deploy/melmill.sbatch"' in (site / "clusters.html").read_text()


def test_formulas_are_mathml(site: Path) -> None:
    page = (site / "metrics.html").read_text()
    assert page.count("<math") > 8
    assert "arithmatex" not in page


def test_doctests_of_the_python_reference_are_code(site: Path) -> None:
    page = (site / "python.html").read_text()
    assert page.count('<span class="gp">&gt;&gt;&gt;') > 3
    assert "<blockquote>" not in page


def test_the_gallery_plays_every_utterance_by_every_node(site: Path) -> None:
    page = (site / "gallery.html").read_text()
    sources = re.findall(r'<audio[^>]* src="([^"]+)"', page)
    assert len(sources) == 2 * 3  # two utterances: the recording and two nodes
    for source in sources:
        info = soundfile.info(site / source)
        assert (info.format, info.samplerate, info.channels) == ("MP3", 16000, 1)
        assert info.frames == pytest.approx(8000, abs=2500)  # MP3 pads
    assert page.count("the recording") == 2 + 1  # and the text above them
    assert len(re.findall(r"SCM -?\d+\.\d</figcaption>", page)) == 4


def test_a_gallery_without_a_run_names_the_remedy(tmp_path: Path) -> None:
    done = build(ROOT / "mkdocs.yml", tmp_path / "site", tmp_path / "nowhere")
    assert done.returncode != 0
    assert "`make docs` makes it" in done.stderr


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[x](nowhere.md)", "'nowhere.md'"),
        ("[x](index.md#nowhere)", "'#nowhere'|'index.md#nowhere'"),
        ("[x](/absolute.md)", "absolute link"),
    ],
)
def test_a_broken_link_fails_the_build(tmp_path: Path, text: str, complaint: str) -> None:
    pages = tmp_path / "docs"
    pages.mkdir()
    (pages / "index.md").write_text(f"# Title\n\n{text}\n")
    config = tmp_path / "mkdocs.yml"
    config.write_text(
        f"INHERIT: {ROOT}/mkdocs.yml\ndocs_dir: docs\nnav: [index.md]\nhooks: []\nplugins: []\nextra_css: []\n"
    )
    done = build(config, tmp_path / "site", tmp_path)
    assert done.returncode != 0
    assert re.search(complaint, done.stderr), done.stderr
