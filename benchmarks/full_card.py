"""Measure a whole evaluation: 7 systems by every metric that is installed, in hours for 1,000 hours of speech.

python -m benchmarks.full_card [--limit 20] [--metrics pesq_wb,estoi] [--workers 2] [--store runs/full_card]

The recordings are LibriSpeech's under ``$MELMILL_REAL_DATA``, 204 utterances, or the first `--limit` of
them; without it the demo corpus. Times are those that the records of the score nodes hold: processor
time is told by clock where nothing else runs. A first run compiles, so one over a few utterances comes
first and does not count. A store that is named is gone on from.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import melmill
from benchmarks.corpora import speech
from benchmarks.figure import Figure, table
from melmill.flows.tasks.report import throughput
from melmill.stages.score.metric import METRICS, metric
from melmill.storage.store import Store

SYSTEMS = {
    "gla10": "{uses: griffin_lim, from: mel, n_iter: 10}",
    "gla100": "{uses: griffin_lim, from: mel, n_iter: 100}",
    "pghi": "{uses: pghi, from: mel}",
    "admm": "{uses: admm, from: mel, n_iter: 50}",
    "draft": "{uses: invert, from: mel, quality: draft}",
    "good": "{uses: invert, from: mel, quality: good}",
    "vocoder": "{uses: vocoder, from: mel, checkpoint: melmill-16k}",
}

PIPELINE = """\
name: full-card
store: {store}
shard_duration_s: 60
max_quarantined: 100 %
stages:
  speech: {{uses: librispeech, root: {root}, sr: 16000{limit}}}
  mel: {{uses: extract, from: speech, preset: paper}}
{systems}
  scores: {{uses: score, from: [{names}], against: speech, preset: paper, metrics: [{metrics}]}}
  report: {{uses: aggregate, from: scores, baseline: gla10}}
cluster: {{pools: {{cpu: {{workers: {workers}}}}}}}
"""


def pipeline(store: Path, root: Path, limit: int, metrics: list[str], workers: int) -> str:
    """Return the pipeline over at most `limit` files, all of them if it is 0."""
    files = sorted(root.rglob("*.flac"))
    some = ", ".join(f'"*/{file.name}"' for file in files[:: max(1, len(files) // limit)][:limit]) if limit else ""
    return PIPELINE.format(
        store=store,
        root=root,
        limit=f", files: [{some}]" if some else "",
        systems="\n".join(f"  {name}: {text}" for name, text in SYSTEMS.items()),
        names=", ".join(SYSTEMS),
        metrics=", ".join(metrics),
        workers=workers,
    )


def main() -> None:
    """Run the evaluation and print its figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--limit", type=int, default=0, help="recordings, spread over the corpus; 0: all")
    parser.add_argument("--metrics", default="all")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--store", type=Path)
    given = parser.parse_args()
    installed = [one.name for one in METRICS.values() if one.is_installed]
    metrics = installed if given.metrics == "all" else [metric(name).name for name in given.metrics.split(",")]
    with tempfile.TemporaryDirectory() as folder:
        root, corpus = speech(Path(folder))

        def made(name: str, limit: int) -> tuple[float, Path]:
            store = given.store if given.store and name == "measured" else Path(folder, name)
            file = Path(folder, f"{name}.yaml")
            file.write_text(pipeline(store, root, limit, metrics, given.workers))
            started = time.perf_counter()
            summary = melmill.run(file)
            assert not summary.tasks.failed, f"{summary.tasks.failed} tasks failed"
            return time.perf_counter() - started, store

        made("warm", 2)
        wall_s, store = made("measured", given.limit)
        print_figures(Store.open(str(store)), wall_s, len(metrics), corpus, given.workers)


def print_figures(store: Store, wall_s: float, n_metrics: int, corpus: str, workers: int) -> None:
    """Print what scoring took, by the records of the store, and the run as a whole."""
    records = {
        name: list(store.product(entry.folder, entry.key).records().values()) for name, entry in store.nodes.items()
    }
    done = throughput(records).set_index("node")
    scored = done.loc[[name for name, entry in store.nodes.items() if entry.kind == "scores"]]
    audio_s, systems = float(done.loc["speech", "audio_s"]), len(scored)
    each = float(scored["compute_s"].sum()) / audio_s
    utterances = int(done.loc["speech", "utterances"])
    print(f"{utterances} utterances of {corpus}, {systems} systems, {n_metrics} metrics, {workers} workers")
    print(
        table(
            [
                Figure(name="audio of the recordings", measured=audio_s, unit="s"),
                Figure(name="scores, time of tasks", measured=float(scored["compute_s"].sum()), unit="s"),
                Figure(name="scores, for 1,000 hours of recordings", measured=1000 * each, unit="core hours"),
                Figure(name="one system of these", measured=1000 * each / systems, unit="core hours"),
                Figure(name="the whole run by the clock", measured=wall_s, unit="s"),
                Figure(name="which is for 1,000 hours", measured=1000 * wall_s / audio_s, unit="hours"),
            ]
        )
    )


if __name__ == "__main__":
    main()
