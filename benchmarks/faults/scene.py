"""One run of the pipeline under faults: its client, its cluster, its store, and the damage done."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from pathlib import Path

from benchmarks.faults.bucket import Mirror
from benchmarks.faults.cluster import Cluster
from benchmarks.faults.corpus import CorpusStory
from benchmarks.faults.processes import Process
from benchmarks.faults.workshop import Workshop
from melmill.storage.records import Record, record_name

# Each utterance takes so long at one stage, so that faults find workers at work, s.
PAUSE_S = 0.1


class Scene:
    """The target of faults.

    Parameters
    ----------
    workshop : Workshop
    cluster : Cluster
    store : Path
        A folder that does not exist yet.
    hangs : bool
        Whether an utterance will hang.
    on_objects : bool
        Whether the store is in a bucket. Then `store` is a copy of it, to be looked at.
    """

    def __init__(
        self, workshop: Workshop, cluster: Cluster, store: Path, *, hangs: bool = False, on_objects: bool = False
    ) -> None:
        self.workshop = workshop
        self.cluster = cluster
        self.store = store
        self._mirror = Mirror(workshop.objects.bucket(), store) if on_objects else None
        self.url = str(store) if self._mirror is None else self._mirror.place.url
        self.overrides = ["--set", f"time_limit_s={workshop.time_limit_s}"] if hangs else []
        self.moods: dict[str, str] = {}
        # Names of the workers that raise at every utterance.
        self.sick: set[str] = set()
        # Names of the workers that a fault holds.
        self.held: set[str] = set()
        # Checksum of each file after it was damaged.
        self.damaged: dict[Path, str] = {}
        # Folders of products that the pipeline does not mean.
        self.strays: set[Path] = set()
        # Utterances that were poison and are in quarantine.
        self.caught: set[str] = set()
        # Every record that was ever seen, by its file: when its task began, how long it took, which attempt it was.
        self.made: dict[Path, set[tuple[str, float, int]]] = {}
        self._stamps: dict[Path, int] = {}
        # What becomes of the corpus.
        self.story = CorpusStory()
        workshop.touchy.forget()
        self.feed({})
        self.client = self._client()

    def _client(self, *more: str) -> Process:
        arguments = ["--set", self.cluster.override, *self.overrides, *more]
        return self.workshop.client(self.url, *arguments, environment={})

    def go_on(self, cluster: Cluster, *, follow: bool = False) -> None:
        """Run again, on a given cluster. Let the store follow the corpus if the last run said so."""
        self.cluster = cluster
        self.client = self._client(*(["--follow"] if follow else []))

    def feed(self, moods: dict[str, str]) -> None:
        """Make more utterances poisonous."""
        self.moods |= moods
        self.workshop.touchy.put(self.moods, PAUSE_S, self.sick)

    def sicken(self, worker: str, *, sick: bool) -> None:
        """Make a worker raise at every utterance, or not any more."""
        self.sick = self.sick | {worker} if sick else self.sick - {worker}
        self.feed({})

    def damage(self, path: Path) -> None:
        """Remember a damaged file as it is now."""
        self.damaged[path] = digest(path)

    def records(self) -> list[Path]:
        """Return the paths of all records."""
        return sorted(self.store.glob("*/*/records/*.json"))

    def watch(self) -> int:
        """Note the records that are new. Return how many there have been."""
        if self._mirror is not None:
            self._mirror.refresh()
        paths = self.records()
        for path in paths:
            with suppress(FileNotFoundError):
                stamp = path.stat().st_mtime_ns
                if self._stamps.get(path) != stamp:
                    self._take_down(path)
                    self._stamps[path] = stamp
        return len(self.made)

    def _take_down(self, path: Path) -> None:
        record = Record.from_json(path.read_bytes())
        if record is not None:
            self.made.setdefault(path, set()).add((record.started_at, record.compute_s, record.attempt))

    @property
    def n_redone(self) -> int:
        """Attempts beyond the first of each task, and tasks whose records had to be made again."""
        return sum(sum(attempt for _, _, attempt in made) - 1 for made in self.made.values())

    def claimed(self) -> list[Path]:
        """Return the files that records list and that exist."""
        folders = [(path.parents[1], Record.from_json(path.read_bytes())) for path in self.records()]
        files = [folder / name for folder, record in folders if record is not None for name in record.files]
        return [file for file in files if file.exists()]

    def unfinished(self, node: str) -> list[str]:
        """Return the utterances of the shards for which a node has no record."""
        entry = self.workshop.nodes[node]
        folder = self.store / entry.folder / entry.key / "records"
        return [
            utterance.utterance_id
            for shard in self.workshop.shards
            if not (folder / f"{record_name(shard.index)}.json").exists()
            for utterance in shard.utterances
        ]

    def untouched(self) -> list[str]:
        """Return the utterances that the touchy stage has not begun."""
        seen = self.workshop.touchy.seen_by()
        return [name for name in self.unfinished("touchy") if name not in seen]


def digest(path: Path) -> str:
    """Return the checksum of a file, or an empty text if it does not exist."""
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else ""
