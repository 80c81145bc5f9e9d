"""What `melmill score` is asked for: folders, their names, and the pipeline that stands for them."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from melmill.flows.pipeline.errors import PipelineError
from melmill.flows.pipeline.layouts import Contents, contents_of
from melmill.flows.pipeline.located import as_yaml, parse
from melmill.flows.pipeline.spec import NODE_NAME, RESERVED_NAMES
from melmill.stages.numeric.presets import preset
from melmill.stages.score.metric import METRICS, metric
from melmill.stages.score.stage import DEFAULT_METRICS
from melmill.storage.files.location import Location

PIPELINE_FILE, STORE_FOLDER = "pipeline.yaml", "store"
REFERENCE, SCORES, REPORT = "speech", "scores", "report"
ALL_METRICS = "all"

# The first line of every pipeline that is written here. By it a folder is known as ours.
HEADER = "# Written by `melmill score`, which writes it anew. Copy it to change it."

_TAKEN = {*RESERVED_NAMES, REFERENCE, SCORES, REPORT}
# Below this, a corpus would make too few shards of the usual length to share among workers.
_SMALL_S = 5 * 3600
_SMALL_SHARD_S, _SHARD_S = 60, 300
# Players of a page: the more systems, the fewer recordings, so that excerpts stay long enough to judge.
_PLAYERS, _MOST_EXAMPLES = 16, 5


@dataclass(frozen=True, kw_only=True)
class Request:
    """Say what to score, and how.

    Parameters
    ----------
    reference : str
        Folder of the recordings; a path, or any URL that fsspec knows.
    systems : mapping of str to str
        Folder of each system's files by the name that its node gets. The first is the baseline.
    output : Path
        Folder of the report.
    metrics : tuple of str
    preset : str or None
        Mel of the spectral metrics. None: ``paper`` at the rate of the recordings.
    sr : int or None
        Rate that all files are compared at, Hz. None: that of most files of each folder.
    lengths : {"same", "cut"}
        See `melmill.stages.score.stage.Score`.
    pairs : str or None
        Table of estimates and references; None: ids and file names tell.
    store : str or None
        Where results go. None: a folder in `output`.
    jobs : int
        Worker processes.
    asr : str or None
        Command that hears the words of `wer` and `cer`; see `melmill.stages.score.recogniser`. None:
        pocketsphinx.
    embedding : str
        Of `fad` and `kad`.
    """

    reference: str
    systems: Mapping[str, str]
    output: Path
    metrics: tuple[str, ...] = DEFAULT_METRICS
    preset: str | None = None
    sr: int | None = None
    lengths: Literal["same", "cut"] = "same"
    pairs: str | None = None
    store: str | None = None
    jobs: int = 1
    asr: str | None = None
    embedding: str = "log_mel"

    @property
    def store_url(self) -> str:
        """Path or URL of the store."""
        return _place(self.store) if self.store is not None else str(self.output.absolute() / STORE_FOLDER)

    @property
    def pipeline_path(self) -> Path:
        """File of the pipeline that stands for the request."""
        return self.output / PIPELINE_FILE


def chosen_metrics(names: Sequence[str]) -> tuple[str, ...]:
    """Return the metrics that are named; ``all`` stands for each one that is installed.

    Raises
    ------
    ParameterError
        There is no such metric; the message has the nearest.

    >>> chosen_metrics(["sc", "mcd"])
    ('sc', 'mcd')
    """
    chosen: list[str] = []
    for name in names:
        installed = [one.name for one in METRICS.values() if one.is_installed]
        found = installed if name == ALL_METRICS else [metric(name).name]
        chosen += [one for one in found if one not in chosen]
    return tuple(chosen) or DEFAULT_METRICS


def named_systems(given: Sequence[str] | Mapping[str, str], output: Path) -> dict[str, str]:
    """Return the folders of systems by their names.

    Parameters
    ----------
    given : sequence of str, or mapping of str to str
        Folders, or ``NAME=FOLDER``; or folders by name.
    output : Path
        A report that is there already keeps the names that it gave to the same folders. So what is
        scored stays scored when folders are added.

    Returns
    -------
    dict of str to str
        In the order given. A folder that has no name of its own is called after the last parts of
        its path in which it differs from the others.

    Raises
    ------
    PipelineError
        A name can't name a node, or a name or a folder is given twice.
    """
    pairs = list(given.items()) if isinstance(given, Mapping) else [_split(one) for one in given]
    _check_once([folder for _, folder in pairs])
    explicit = [name for name, _ in pairs if name]
    for name in explicit:
        if not NODE_NAME.fullmatch(name) or name in _TAKEN:
            taken = ", ".join(sorted(_TAKEN))
            raise PipelineError(f"{name!r} can't name a system: use letters, digits, '_' and '-', and none of {taken}")
    twice = next((name for name, count in Counter(explicit).items() if count > 1), None)
    if twice is not None:
        raise PipelineError(f"two systems are called {twice!r}: give each folder another NAME=FOLDER")
    kept = {place: name for name, place in _written_roots(output).items() if name not in explicit}
    known = {folder: name or kept.get(_place(folder), "") for name, folder in pairs}
    free = [folder for folder, name in known.items() if not name]
    made = dict(zip(free, _path_names(free, {*_TAKEN, *filter(None, known.values())}), strict=True))
    return {name or known[folder] or made[folder]: folder for name, folder in pairs}


def _check_once(folders: Sequence[str]) -> None:
    seen = set()
    for folder in folders:
        if _place(folder) in seen:
            raise PipelineError(f"{folder!r} is given twice: name each folder once, the recordings first")
        seen.add(_place(folder))


def _split(text: str) -> tuple[str, str]:
    """Return name and folder of ``NAME=FOLDER``; the name is empty where there is none."""
    name, equals, folder = text.partition("=")
    if equals and folder and NODE_NAME.fullmatch(name) and not Path(text).expanduser().exists():
        return name, folder
    return "", text


def _path_names(folders: Sequence[str], taken: set[str]) -> list[str]:
    """Return a name for each folder: as few last parts of its path as tell it from the others.

    >>> _path_names(["out/a/wavs", "out/b/wavs"], set())
    ['a', 'b']
    >>> _path_names(["old/gen", "new/gen", "tts v1.2"], set())
    ['old-gen', 'new-gen', 'tts-v1-2']
    """
    paths = [[part for part in map(_cleaned, re.split(r"[/\\]", _place(folder))) if part] for folder in folders]
    while len(paths) > 1 and all(len(path) > 1 for path in paths) and len({path[-1] for path in paths}) == 1:
        paths = [path[:-1] for path in paths]
    depths = [1] * len(paths)
    while True:
        names = ["-".join(path[-depth:]) for path, depth in zip(paths, depths, strict=True)]
        counts = Counter(names)
        vague = [i for i, name in enumerate(names) if (counts[name] > 1 or name in taken) and depths[i] < len(paths[i])]
        if not vague:
            break
        for i in vague:
            depths[i] += 1
    return list(_numbered(names, taken))


def _numbered(names: Sequence[str], taken: set[str]) -> Iterator[str]:
    """Yield the names, with a number behind each that is taken still."""
    used = set(taken)
    for name in names:
        free = base = name or "system"
        number = 2
        while free in used:
            free, number = f"{base}-{number}", number + 1
        used.add(free)
        yield free


def _cleaned(part: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]+", "-", part).strip("-_")


def _place(folder: str) -> str:
    """Return a folder as a pipeline names it from anywhere: an absolute path, or a URL."""
    return folder.rstrip("/") if "://" in folder else os.path.normpath(Path(folder).expanduser().absolute())


def is_ours(output: Path) -> bool:
    """Tell whether a folder is a report of `melmill score`."""
    return _written_text(output).startswith(HEADER)


def _written_text(output: Path) -> str:
    """Return the text of the pipeline in a folder; empty if there is none."""
    try:
        return Location(str(output.absolute())).read(PIPELINE_FILE).decode()
    except (OSError, UnicodeDecodeError):
        return ""


def _written(output: Path) -> Mapping[str, Any]:
    """Return the pipeline that an earlier call wrote; empty if there is none."""
    text = _written_text(output)
    if not text.startswith(HEADER):
        return {}
    try:
        document = parse(text, PIPELINE_FILE).plain()
    except PipelineError:
        return {}
    return document if isinstance(document, Mapping) else {}


def _written_roots(output: Path) -> dict[str, str]:
    stages = _written(output).get("stages")
    nodes = stages.items() if isinstance(stages, Mapping) else ()
    return {
        str(name): str(node["root"])
        for name, node in nodes
        if isinstance(node, Mapping) and "root" in node and name not in _TAKEN and NODE_NAME.fullmatch(str(name))
    }


def check_request(request: Request) -> None:
    """Check that no folder is given twice or lies in another, and that the output may be written.

    Raises
    ------
    PipelineError
        One of that is not so.
    ParameterError
        There is no such preset.
    """
    if request.preset is not None:
        preset(request.preset)
    folders = (request.reference, *request.systems.values())
    _check_once(folders)
    places: dict[str, str] = {}
    for folder in folders:
        place = _place(folder)
        if Path(place).is_file():
            raise PipelineError(f"{folder!r} is a file: name the folder that holds it")
        for other, shown in places.items():
            inner, outer = (folder, shown) if place.startswith(f"{other}/") else (shown, folder)
            if place.startswith(f"{other}/") or other.startswith(f"{place}/"):
                raise PipelineError(
                    f"{inner!r} lies in {outer!r}, so that its files would count as those of both: give folders apart"
                )
        places[place] = folder
    output = request.output
    if output.exists() and not output.is_dir():
        raise PipelineError(f"-o {str(output)!r} is a file: name a folder for the report")
    if output.is_dir() and any(output.iterdir()) and not is_ours(output):
        raise PipelineError(
            f"-o {str(output)!r} holds other files and is no report of `melmill score`: name an empty or a new folder"
        )


def looked_at(request: Request) -> dict[str, Contents]:
    """Return what each folder holds, the recordings under their node's name.

    Raises
    ------
    PipelineError
        A folder holds no audio that can be read.
    StoreError
        A folder is not there.
    """
    contents = {}
    for name, folder in {REFERENCE: request.reference, **request.systems}.items():
        found = contents[name] = contents_of(folder)
        if found.n_mels is not None:
            raise PipelineError(
                f"{folder!r} holds {found.n_files:,} mels and no audio: invert them first (`melmill invert`, or a "
                "pipeline with mel_folder)"
            )
        if not found.rates:
            raise PipelineError(
                f"none of the {found.n_files:,} files in {folder!r} is audio that can be read: are they damaged?"
            )
    return contents


def rate_notes(request: Request, contents: Mapping[str, Contents]) -> Iterator[str]:
    """Yield a line for each folder with files of another rate than its files are compared at."""
    for name, found in contents.items():
        sr = _rate(request, found)
        others = {rate: count for rate, count in found.rates.items() if rate != sr}
        if others:
            rates = ", ".join(f"{count:,} of {rate} Hz" for rate, count in others.items())
            yield f"{name}: {sum(others.values()):,} of {found.n_files:,} files are resampled to {sr} Hz ({rates})"


def _rate(request: Request, contents: Contents) -> int:
    return request.sr or next(iter(contents.rates))


def pipeline_text(request: Request, contents: Mapping[str, Contents]) -> str:
    """Return the pipeline that stands for a request, as YAML that runs from anywhere.

    Parameters
    ----------
    request : Request
    contents : mapping of str to Contents
        What `looked_at` found.
    """
    recordings = contents[REFERENCE]
    groups = [
        *(["subset"] if recordings.has_subsets else []),
        *(["speaker"] if recordings.n_speakers > 1 else []),
    ]
    nodes: dict[str, dict[str, object]] = {
        REFERENCE: {
            "uses": recordings.layout.uses,
            **recordings.layout.fields,
            "root": _place(str(recordings.layout.fields["root"])),
            **_ingested(request, recordings),
        }
    }
    for name, folder in request.systems.items():
        nodes[name] = {
            "uses": "audio_folder",
            "root": _place(folder),
            "folders": [],
            **_ingested(request, contents[name]),
        }
    nodes[SCORES] = {
        "uses": "score",
        "from": list(request.systems),
        "against": REFERENCE,
        "metrics": list(request.metrics),
        **({} if request.preset is None else {"preset": request.preset}),
        **({} if request.lengths == "same" else {"lengths": request.lengths}),
        **({} if request.pairs is None else {"pairs": _place(request.pairs)}),
        **({} if request.asr is None else {"asr": {"command": request.asr}}),
        **({} if request.embedding == "log_mel" else {"embedding": request.embedding}),
    }
    nodes[REPORT] = {
        "uses": "aggregate",
        "from": SCORES,
        **({"baseline": next(iter(request.systems))} if len(request.systems) > 1 else {}),
        "by": groups,
        "examples": max(2, min(_MOST_EXAMPLES, _PLAYERS // (len(request.systems) + 1))),
        "title": f"{', '.join(request.systems)} against {Path(request.reference.rstrip('/')).name or 'the recordings'}",
    }
    lines = [
        HEADER,
        f"#   melmill plan {request.pipeline_path}   say what a run would do",
        f"#   melmill run {request.pipeline_path}    score what is new",
        "# Recordings and files stay where they are (audio: reference) and are read again where they are needed.",
        "name: score",
        f"store: {as_yaml(request.store_url)}",
        f"shard_duration_s: {_shard_s(request, contents)}",
        "max_quarantined: 100 %",
        "stages:",
        *(line for name, fields in nodes.items() for line in _node(name, fields)),
        f"cluster: {{pools: {{cpu: {{workers: {request.jobs}}}}}}}",
    ]
    return "\n".join(lines) + "\n"


def _ingested(request: Request, contents: Contents) -> dict[str, object]:
    return {"sr": _rate(request, contents), "audio": "reference"}


def _node(name: str, fields: Mapping[str, object]) -> Iterator[str]:
    yield f"  {name}:"
    for field, value in fields.items():
        yield f"    {field}: {as_yaml(list(value) if isinstance(value, tuple) else value)}"


def _shard_s(request: Request, contents: Mapping[str, Contents]) -> int | float:
    """Return the duration of a shard: that of the last call, as it is in the keys of what is stored."""
    before = _written(request.output).get("shard_duration_s")
    if isinstance(before, int | float) and before > 0:
        return before
    return _SMALL_SHARD_S if contents[REFERENCE].duration_s < _SMALL_S else _SHARD_S
