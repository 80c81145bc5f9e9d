"""Measure the page of a report: how long it takes, how large it is, and how soon a browser has it.

python -m benchmarks.report [--utterances 100000] [--systems 12] [--metrics 30] [--output page.html]

The scores are drawn: utterances differ, systems differ by some metrics, and a few values failed. Where
fewer metrics are installed than asked for, stand-ins make up the number. A browser's time is that of
Chromium until the page's script has run, less that for an empty page; it is left out without one.
"""

from __future__ import annotations

import argparse
import resource
import shutil
import subprocess
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmarks.figure import Figure, table
from melmill.stages.report.contract import Example, Tables
from melmill.stages.report.stage import Aggregate
from melmill.stages.report.views.overview import GROUPS
from melmill.stages.score.metric import METRICS, Metric, metric

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
SR, EXAMPLE_S = 16000, 8


def metrics_of(count: int) -> list[Metric]:
    """Return so many metrics; those that are not installed are stand-ins, which can be found by name."""
    found = list(METRICS.values())[:count]
    base, groups = found[0], list(GROUPS)
    for i in range(count - len(found)):
        made = replace(
            base, name=f"standin{i}", column=f"standin{i}", title=f"Stand-in {i}", group=groups[i % len(groups)],
            better="higher" if i % 2 else "lower",
        )  # fmt: skip
        METRICS._built_in[made.name] = made
        found.append(made)
    return found


def scores_of(n_utterances: int, systems: list[str], metrics: list[Metric], n_speakers: int) -> pd.DataFrame:
    """Return a row per utterance and system."""
    rng = np.random.default_rng(0)
    difficulty = rng.normal(size=n_utterances)
    parts = []
    for j, system in enumerate(systems):
        frame: dict[str, object] = {
            "utterance_id": [f"{i % n_speakers}-{i:06d}" for i in range(n_utterances)],
            "subset": pd.Categorical(["test-clean"] * n_utterances),
            "speaker_id": pd.Categorical([str(i % n_speakers) for i in range(n_utterances)]),
            "node": pd.Categorical([system] * n_utterances, categories=systems),
            "duration_s": 5.0,
        }
        for k, one in enumerate(metrics):
            y = one.sign * (0.1 * j * (k % 3 > 0) - 0.5 * difficulty + 0.4 * rng.normal(size=n_utterances))
            lost = (k % 5 == 0) & (rng.random(n_utterances) < 0.001)
            frame[one.column] = np.where(lost, np.nan, y)
            frame[one.status_column] = pd.Categorical(np.where(lost, "timeout", "ok"))
        parts.append(pd.DataFrame(frame))
    return pd.concat(parts, ignore_index=True)


def example_of(utterance_id: str, systems: list[str]) -> Example:
    """Return noise at the level of speech, of the recording and of every system."""
    rng = np.random.default_rng(1)

    def noise() -> NDArray[np.float32]:
        return np.asarray(0.05 * rng.normal(size=SR * EXAMPLE_S), dtype=np.float32)

    made = {system: noise() for system in systems}
    return Example(utterance_id=utterance_id, text="", why="median", sr=SR, reference=noise(), reconstructions=made)


def browser_s(page: str) -> float:
    """Return the wall time of a browser that loads a page and runs its script, s; NaN without one."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        return float("nan")
    with tempfile.TemporaryDirectory() as profile:
        command = [browser, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}", "--dump-dom"]
        times = {}
        for address in ("about:blank", "about:blank", page):  # the first start makes the profile
            started = time.perf_counter()
            subprocess.run([*command, address], capture_output=True, timeout=120, check=True)
            times[address] = time.perf_counter() - started
    return times[page] - times["about:blank"]


def main() -> None:
    """Make a page and print its figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--utterances", type=int, default=2000)
    parser.add_argument("--systems", type=int, default=12)
    parser.add_argument("--metrics", type=int, default=30)
    parser.add_argument("--speakers", type=int, default=40)
    parser.add_argument("--output", type=Path)
    given = parser.parse_args()
    systems = [f"system{j}" for j in range(given.systems)]
    metrics = metrics_of(given.metrics)
    scores = scores_of(given.utterances, systems, metrics, given.speakers)
    assert metric(metrics[-1].column) is metrics[-1]
    examples = [example_of(str(scores["utterance_id"].iloc[i]), systems) for i in range(2)]
    started, worked = time.perf_counter(), time.process_time()
    files = Aggregate(baseline=systems[0], by=("speaker",)).render(Tables(scores=scores, pipeline="report"), examples)
    took, cpu = time.perf_counter() - started, time.process_time() - worked
    with tempfile.TemporaryDirectory() as folder:
        page = given.output or Path(folder, "index.html")
        page.write_bytes(files["index.html"])
        opened = browser_s(page.absolute().as_uri())
    peak_gib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{given.utterances:,} utterances, {given.systems} systems, {given.metrics} metrics")
    print(
        table(
            [
                Figure(name="size of the page", measured=len(files["index.html"]) / 1e6, unit="MB", goal=5),
                Figure(name="opened by a browser", measured=opened, unit="s", goal=2),
                Figure(name="made in, processor time", measured=cpu, unit="s"),
                Figure(name="made in, wall time", measured=took, unit="s"),
                Figure(name="peak memory", measured=peak_gib, unit="GiB"),
            ]
        )
    )


if __name__ == "__main__":
    main()
