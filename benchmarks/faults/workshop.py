"""The means of a campaign: a small corpus, a pipeline, and the store of an undisturbed run."""

from __future__ import annotations

import io
import os
import shutil
import sys
import time
from collections.abc import Mapping
from contextlib import redirect_stderr
from functools import cached_property
from pathlib import Path

import melmill
from benchmarks.corpora import speech
from benchmarks.faults.bucket import Server
from benchmarks.faults.comparing import fingerprint
from benchmarks.faults.disk import Disk
from benchmarks.faults.orders import build
from benchmarks.faults.package import Touchy
from benchmarks.faults.processes import Process
from benchmarks.faults.schedule import Kind
from melmill.flows.execution.run import run
from melmill.flows.execution.summary import Summary
from melmill.flows.pipeline.spec import load
from melmill.flows.planning.plan import Plan, make_plan
from melmill.storage.store import NodeEntry, Store

N_UTTERANCES = 24
# Longest time of a run that compiles everything, s.
BARE_S = 600.0
ROOT = Path(__file__).parents[2]
_PIPELINE = """\
name: faults
store: nowhere
shard_duration_s: 10
max_quarantined: 1.0
time_limit_s: 60
stages:
  speech: {{uses: librispeech, root: {root}}}
  touchy: {{uses: touchy, from: speech}}
  mel:    {{uses: extract, from: touchy}}
  gla:    {{uses: griffin_lim, from: mel, n_iter: 4}}
  admm:   {{uses: admm, from: mel, n_iter: 2}}
  scores: {{uses: score, from: [gla, admm], against: speech, metrics: [sc, scm]}}
  report: {{uses: aggregate, from: scores, baseline: gla, examples: 1}}
"""


class Workshop:
    """The means of a campaign.

    Parameters
    ----------
    folder : Path
        Gets everything that the campaign makes, except stores.
    disk : Disk
        Gets the stores.
    """

    def __init__(self, folder: Path, disk: Disk) -> None:
        self.folder = folder
        self.disk = disk
        self.library = build(folder)
        self.objects = Server(folder)
        (folder / "touchy").mkdir()
        self.touchy = Touchy(folder / "touchy")
        self.corpus = _corpus(folder)
        self.pipeline = folder / "pipeline.yaml"
        self.pipeline.write_text(_PIPELINE.format(root=folder / "corpus"))
        paths = [str(ROOT), str(self.touchy.site)]
        self.environment = {"PYTHONPATH": os.pathsep.join(paths), **self.touchy.environment}
        os.environ.update(self.environment)
        self.undisturbed = folder / "undisturbed"
        started = time.monotonic()
        self.n_tasks = self.resume(str(self.undisturbed)).tasks.total
        # Where an utterance hangs: what no other takes on a machine like this, s.
        self.time_limit_s = max(8, round(time.monotonic() - started))
        self.expected = fingerprint(self.undisturbed)
        store = Store.open(str(self.undisturbed))
        self.nodes: Mapping[str, NodeEntry] = store.nodes
        catalogue = store["speech"].catalogue
        self.shards = [catalogue.shard(index) for index in range(catalogue.n_shards)]
        self.utterances = set(store["gla"])

    def client(self, url: str, *arguments: str, environment: Mapping[str, str]) -> Process:
        """Start a run as a process."""
        log = self.folder / f"client-{len(list(self.folder.glob('client-*'))):04d}.log"
        command = [sys.executable, "-m", "melmill", "run", str(self.pipeline), "--store", url, *arguments]
        return Process(command, self.folder, log, {**os.environ, **self.environment, **environment})

    @cached_property
    def bare(self) -> Mapping[str, str]:
        """Environment with a copy of the package where nothing, not even root, can write a cache.

        The user's temporary folder takes its place. One run has compiled what tasks need.
        """
        site = self.folder / "bare" / "melmill"
        shutil.copytree(Path(melmill.__file__).parent, site, ignore=shutil.ignore_patterns("__pycache__"))
        for folder in [site, *(path for path in site.rglob("*") if path.is_dir())]:
            (folder / "__pycache__").touch()
        temporary = self.folder / "bare-temporary"
        temporary.mkdir()
        environment = {
            "PYTHONPATH": os.pathsep.join([str(site.parent), self.environment["PYTHONPATH"]]),
            "HOME": "/dev/null",
            "NUMBA_CACHE_DIR": "",
            "XDG_CACHE_HOME": "/dev/null",
            "TMPDIR": str(temporary),
        }
        done = self.client(str(self.folder / "bare-store"), "--executor", "serial", environment=environment)
        if done.exit_code(BARE_S):
            raise RuntimeError(f"no run without a cache: {done.said}")
        return environment

    def files(self) -> list[Path]:
        """Return the files of the corpus."""
        return sorted((self.folder / "corpus").rglob("*.flac"))

    def plan(self, url: str) -> Plan:
        """Return the plan of a run."""
        return make_plan(load(self.pipeline, store=url))

    def resume(self, url: str) -> Summary:
        """Run in this process, undisturbed."""
        with redirect_stderr(io.StringIO()):
            return run(self.plan(url), "serial")

    def impossible(self) -> dict[Kind, str]:
        """Return the kinds of faults that this machine can't produce, with the reasons."""
        no_disk = f"no file system can be mounted ({self.disk.refusal})"
        no_orders = "no C compiler (cc) to build what stands between a process and its C library"
        needs = {Kind.DISK_FULL: no_disk, Kind.READ_ONLY: no_disk} if not self.disk.mounted else {}
        if self.library is None:
            needs |= dict.fromkeys([Kind.WRITES_FAIL, Kind.WORKER_CLOCK, Kind.CLIENT_CLOCK], no_orders)
        return needs


def _corpus(folder: Path) -> str:
    """Copy the shortest recordings. Return their ids."""
    root, name = speech(folder / "demo")
    files = sorted((path.stat().st_size, str(path.relative_to(root))) for path in root.rglob("*.flac"))
    for _, path in files[:N_UTTERANCES]:
        copy = folder / "corpus" / path
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(root / path, copy)
    return name
