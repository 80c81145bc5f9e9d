"""Make a listening test: choose utterances, write the page and its sounds, store the design."""

from __future__ import annotations

import base64
import fnmatch
import hashlib
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from melmill.flows.execution.errors import RunFailed
from melmill.flows.pipeline.errors import PipelineError
from melmill.flows.runs.listening.page import PAGE, index_page
from melmill.flows.runs.listening.sounds import Sounds
from melmill.flows.runs.listening.stored import write_design
from melmill.stages.numeric.errors import StageError, Unusable
from melmill.stages.score.listeners.design import (
    Candidate,
    Design,
    System,
    Trial,
    check_size,
    drawn,
    pairs,
    trials,
)
from melmill.stages.score.listeners.kinds import KINDS, REFERENCE, ListeningKind
from melmill.stages.score.listeners.stimuli import ANCHORS, Aligned, aligned, has_anchor, low_passed
from melmill.storage.errors import DamagedData, SourceError, StoreFull, StoreUnwritable
from melmill.storage.files.location import Location
from melmill.storage.runs import Manifest
from melmill.storage.store import Store

TRIALS = "trials"
Progress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class ListeningRequest:
    """Say what test to make.

    Parameters
    ----------
    kind : str
        See `KINDS`.
    nodes : tuple of str
        Nodes to hear. Empty: all that are scored.
    n : int
        Utterances.
    seed : int
        Of the choice of utterances.
    reference : str or None
        Node of the recordings. None: the one that the nodes were scored against.
    against : str or None
        Compare this node with each other one, and not all pairs. For paired tests.
    by : {None, "speaker", "subset"}
        Take as many utterances of each.
    speakers, subsets, utterances : tuple of str
        Take only these: names, and patterns of ids. Empty: all.
    loudness_lufs : float
        Loudness of all sounds.
    longest_s : float
        Longer utterances are cut here.
    title : str
        Heading of the page. Empty: the kind's.
    """

    kind: str
    nodes: tuple[str, ...] = ()
    n: int = 20
    seed: int = 0
    reference: str | None = None
    against: str | None = None
    by: str | None = None
    speakers: tuple[str, ...] = ()
    subsets: tuple[str, ...] = ()
    utterances: tuple[str, ...] = ()
    loudness_lufs: float = -23.0
    longest_s: float = 10.0
    title: str = ""

    @property
    def test(self) -> ListeningKind:
        """The kind of test."""
        return KINDS[self.kind]

    def as_settings(self) -> dict[str, object]:
        """Return what the design keeps of it."""
        return {
            "n": self.n,
            "by": self.by or "",
            "speakers": list(self.speakers),
            "subsets": list(self.subsets),
            "utterances": list(self.utterances),
            "loudness_lufs": self.loudness_lufs,
            "longest_s": self.longest_s,
        }


def make_test(
    store: Store,
    manifest: Manifest,
    request: ListeningRequest,
    folder: str,
    progress: Progress = lambda _done, _all: None,
) -> Design:
    """Write the page of a test to a folder, and its design to the store; return the design.

    Raises
    ------
    PipelineError
        The request does not fit the run, or the folder holds another test.
    RunFailed
        The folder can't be written, or the store is damaged.
    """
    location = Location(folder)
    if f"{location.url}/".startswith(f"{store.location.url}/"):
        raise PipelineError(f"{location.url!r} is in the store {store.location.url!r}: write to a folder of its own")
    if location.exists(PAGE):
        raise PipelineError(f"{location.url} holds a page already: write to another folder, or remove this one")
    try:
        return _Maker(store, manifest, request, location, progress).make()
    except StageError as error:
        raise PipelineError(str(error)) from error
    except (StoreFull, StoreUnwritable, DamagedData, SourceError) as error:
        raise RunFailed(str(error)) from error


class _Maker:
    def __init__(
        self, store: Store, manifest: Manifest, request: ListeningRequest, location: Location, progress: Progress
    ) -> None:
        self.store, self.manifest, self.request = store, manifest, request
        self.location, self.progress = location, progress
        self.sounds = Sounds(store, manifest, request.nodes, request.reference)
        self.names = list(self.sounds.nodes)
        if request.test.is_paired and len(self.names) == 1 and self.names[0] != self.sounds.reference:
            # One system is compared with the recordings.
            self.names.insert(0, self.sounds.reference)
        if request.against is not None and request.against not in self.names:
            raise PipelineError(f"--against must be one of the nodes {', '.join(self.names)}, got {request.against!r}")
        if not request.test.is_paired and self.sounds.reference in self.names:
            raise PipelineError(
                f"{self.sounds.reference!r} is the {REFERENCE} of the test already: leave it out of --nodes"
            )
        self.anchors: dict[str, float] = {}
        self.notes: list[str] = []
        self.unusable: list[str] = []
        self.n_cut = 0
        self.quietest = request.loudness_lufs

    def make(self) -> Design:
        chosen = self._candidates()
        made: list[Trial] = []
        for one, sound in self._usable(chosen):
            groups = self._groups(sound)
            new = trials([one], groups, secret=self._secret, first=len(made) + 1)
            for trial in new:
                self.location.replace(f"{TRIALS}/{trial.name}.js", self._trial_file(trial, sound))
            made += new
            self.progress(len(made) // len(groups), self.request.n)
        design = self._design(tuple(made))
        write_design(self.store, design)
        # The page comes last: without it the folder holds no test.
        self.location.replace(PAGE, index_page(design, self.request.title))
        return design

    @property
    def _secret(self) -> str:
        products = [self.sounds.product(name) for name in (self.sounds.reference, *self.names)]
        return hashlib.sha256(json.dumps([self.request.kind, self.request.seed, products]).encode()).hexdigest()

    def _candidates(self) -> list[Candidate]:
        request, known = self.request, self.sounds.candidates()
        for option, wanted, column in (
            ("--speakers", request.speakers, "speaker_id"),
            ("--subsets", request.subsets, "subset"),
        ):
            there = {getattr(one, column) for one in known}
            missing = sorted(set(wanted) - there)
            if missing:
                some = ", ".join(sorted(there)[:5])
                raise PipelineError(f"{option} has {missing[0]!r}, which no utterance has that all nodes made: {some}")
        fitting = [
            one
            for one in known
            if (not request.speakers or one.speaker_id in request.speakers)
            and (not request.subsets or one.subset in request.subsets)
            and (not request.utterances or any(fnmatch.fnmatchcase(one.utterance_id, p) for p in request.utterances))
        ]
        if len(fitting) < request.n:
            raise PipelineError(
                f"--n {request.n} needs as many utterances that all of {', '.join(self.names)} have and that are "
                f"asked for, got {len(fitting)} of {len(known)}: use --n {len(fitting) or 'smaller'}"
            )
        return drawn(fitting, by=request.by, seed=request.seed)

    def _usable(self, chosen: Sequence[Candidate]) -> Iterator[tuple[Candidate, Aligned]]:
        """Yield as many utterances with their sounds as the test takes."""
        n = 0
        for one in chosen:
            if n == self.request.n:
                return
            try:
                sound = self._aligned(one)
            except Unusable as error:
                self.unusable.append(f"{one.utterance_id}: {error}")
                continue
            n += 1
            self.n_cut += sound.is_cut
            self.quietest = min(self.quietest, sound.loudness_lufs)
            yield one, sound
        if n < self.request.n:
            raise PipelineError(
                f"only {n} of {len(chosen)} utterances can be heard, --n asks for {self.request.n}; "
                f"the last other: {self.unusable[-1]}"
            )

    def _aligned(self, one: Candidate) -> Aligned:
        sources = {name: self.sounds.waveform(name, one.utterance_id) for name in self.names}
        check_size(self.request.test, self.names, ())
        if not self.request.test.is_paired:
            y, sr = self.sounds.waveform(self.sounds.reference, one.utterance_id)
            sources[REFERENCE] = (y, sr)
            self.anchors = {name: hz for name, hz in ANCHORS.items() if has_anchor(hz, sr)}
            check_size(self.request.test, self.names, list(self.anchors))
            for name, cutoff_hz in self.anchors.items():
                if np.isfinite(y).all():
                    sources[name] = (low_passed(y, sr, cutoff_hz), sr)
        return aligned(sources, loudness_lufs=self.request.loudness_lufs, longest_s=self.request.longest_s)

    def _groups(self, sound: Aligned) -> list[tuple[str, ...]]:
        if self.request.test.is_paired:
            return [*pairs(self.names, self.request.against)]
        return [tuple(sound.sounds)]

    def _trial_file(self, trial: Trial, sound: Aligned) -> bytes:
        held: dict[str, str] = {
            token: _encoded(sound.sounds[system], sound.sr) for token, system in trial.stimuli.items()
        }
        if not self.request.test.is_paired:
            held["reference"] = _encoded(sound.sounds[REFERENCE], sound.sr)
        return f"melmillTrial({json.dumps(trial.name)}, {json.dumps(held, sort_keys=True)});\n".encode()

    def _design(self, made: tuple[Trial, ...]) -> Design:
        systems = [System(name=name, folder=at[0], key=at[1]) for name, at in self._products().items()]
        if not self.request.test.is_paired:
            folder, key = self.sounds.product(self.sounds.reference)
            systems += [System(name=REFERENCE, folder=folder, key=key), *(System(name=name) for name in self.anchors)]
        notes = [
            f"{name} is left out: at this rate the recordings have nothing above {hz / 1000:g} kHz to take away"
            for name, hz in ANCHORS.items()
            if not self.request.test.is_paired and name not in self.anchors
        ]
        if self.n_cut:
            notes.append(f"{self.n_cut} of {self.request.n} utterances are cut after {self.request.longest_s:g} s")
        if self.quietest < self.request.loudness_lufs - 0.05:
            notes.append(
                f"some pages are quieter than {self.request.loudness_lufs:g} LUFS, down to {self.quietest:.1f}, "
                "so that no peak passes -1 dB of full scale; the sounds of one page are always equally loud"
            )
        if self.unusable:
            notes.append(f"{len(self.unusable)} utterances were passed over, such as {self.unusable[0]}")
        return Design(
            kind=self.request.kind,
            project=self.manifest.project,
            run_id=self.manifest.run_id,
            seed=self.request.seed,
            reference=self.sounds.reference,
            systems=tuple(systems),
            trials=made,
            settings=self.request.as_settings(),
            notes=tuple(notes),
        )

    def _products(self) -> Mapping[str, tuple[str, str]]:
        return {name: self.sounds.product(name) for name in self.names}


def _encoded(y: NDArray[np.float32], sr: int) -> str:
    """Return a sound as a 16-bit FLAC file in base64."""
    import soundfile

    buffer = io.BytesIO()
    samples = np.rint(y.astype(np.float64) * 32767.0).astype(np.int16)
    soundfile.write(buffer, samples, sr, format="FLAC", subtype="PCM_16")
    return base64.b64encode(buffer.getvalue()).decode()


def sounds_of(folder: str, trial: str) -> dict[str, tuple[NDArray[np.float32], int]]:
    """Return the sounds of a page by their blind names: waveforms ``(n_samples,)`` and their rate in Hz.

    Parameters
    ----------
    folder : str
        Of the test.
    trial : str
        Four digits.
    """
    import soundfile

    text = Location(folder).read(f"{TRIALS}/{trial}.js").decode()
    held = json.loads(text[text.index("{") : text.rindex("}") + 1])
    return {name: soundfile.read(io.BytesIO(base64.b64decode(data)), dtype="float32") for name, data in held.items()}
