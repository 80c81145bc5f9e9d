"""Write a first pipeline for a folder: commented YAML that plans as it stands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from melmill.flows.pipeline.errors import PipelineError
from melmill.flows.pipeline.layouts import Contents
from melmill.flows.pipeline.located import as_yaml
from melmill.stages.numeric.presets import preset, preset_names

Purpose = Literal["training", "resynthesis", "evaluation"]
PURPOSES: tuple[Purpose, ...] = get_args(Purpose)

# Below this, a corpus would make too few shards of the usual length to share among workers.
_SMALL_S = 5 * 3600
_SMALL_SHARD_S, _SHARD_S = 60, 300

# Column at which comments begin.
_COMMENT = 38

_EXPLAINED = {
    "folders": "what the folders below root are: subset, speaker, chapter or '-'",
    "files": "patterns of the paths wanted",
}

# The usual mels to train vocoders with, and to invert: the least rate of each, Hz, and its preset.
_TRAINED = ((44100, "bigvgan_v2_44khz_128band_512x"), (24000, "vocos_24khz"), (22050, "hifigan"), (0, "speecht5"))
_INVERTED = (*_TRAINED[:-1], (0, "paper"))


@dataclass(frozen=True, kw_only=True)
class Answers:
    """Say what a pipeline is for.

    Parameters
    ----------
    purpose : {"training", "resynthesis", "evaluation"}
    preset : str
        Mel that it makes or reads.
    sr : int
        Rate of the recordings in the store, Hz. Mels have none.
    store : str
        Path or fsspec URL.
    name : str
        Name of the project.
    """

    purpose: Purpose
    preset: str
    sr: int
    store: str
    name: str


def purposes(contents: Contents) -> tuple[Purpose, ...]:
    """Return what a pipeline over a folder may be for, the usual purpose first."""
    return PURPOSES if contents.n_mels is None else ("resynthesis",)


def usual_preset(contents: Contents, purpose: Purpose) -> str:
    """Return the usual preset for the bands of a folder's mels, or for the rate of most recordings."""
    if contents.n_mels is not None:
        fits = presets_of(contents.n_mels)
        usual = ["hifigan", *(name for _, name in _TRAINED)]
        return next((name for name in [*usual, *fits] if name in fits), "hifigan")
    rate = next(iter(contents.rates), 0)
    return next(name for least, name in (_TRAINED if purpose == "training" else _INVERTED) if rate >= least)


def presets_of(n_mels: int) -> list[str]:
    """Return the names of the presets with so many bands."""
    return [name for name in preset_names() if preset(name).n_mels == n_mels]


def starter(contents: Contents, answers: Answers, path: str) -> str:
    """Return the text of a pipeline.

    Parameters
    ----------
    contents : Contents
    answers : Answers
    path : str
        Where it will be written, for the commands in its comments.

    Raises
    ------
    PipelineError
        The purpose or the preset does not fit the folder.
    """
    if answers.purpose not in purposes(contents):
        root = contents.layout.fields["root"]
        raise PipelineError(f"--for {answers.purpose} needs recordings, but {root!r} holds mels alone")
    title = {
        "training": f"{contents.layout.name}: mels to train a vocoder or an acoustic model with.",
        "resynthesis": f"{contents.layout.name}: every utterance from its mel back to audio.",
        "evaluation": f"{contents.layout.name}: methods of inversion compared on the same mels.",
    }[answers.purpose]
    shard_s = _SMALL_SHARD_S if contents.duration_s < _SMALL_S else _SHARD_S
    commands = [
        (f"melmill plan {path}", "say what a run would do"),
        (f"melmill run {path}", "do it, or go on where it stopped"),
        *_afterwards(answers),
        ("melmill schema --help", "how an editor completes and checks this file"),
    ]
    width = max(len(command) for command, _ in commands)
    lines = [
        f"# {title}",
        *(f"#   {command:<{width}}  {meaning}" for command, meaning in commands),
        f"name: {as_yaml(answers.name)}",
        _commented(f"store: {as_yaml(answers.store)}", "a path, or any URL that fsspec knows"),
        _commented(f"shard_duration_s: {shard_s}", "audio in a shard, s: the unit of work and of resuming"),
        "stages:",
    ]
    nodes = {"training": _training, "resynthesis": _resynthesis, "evaluation": _evaluation}[answers.purpose]
    for node in nodes(contents, answers):
        lines.extend(node)
    if answers.purpose == "training":
        dataset = f'melmill.torch_dataset(melmill.open({answers.store!r}), mel="mel", audio="speech")'
        lines.append(f"# Then, in Python: {dataset}")
    lines.append("# One worker per core, unless said otherwise:")
    lines.append("# cluster: {pools: {cpu: {workers: 4, memory: 4GiB}}}")
    return "\n".join(lines) + "\n"


def _afterwards(answers: Answers) -> list[tuple[str, str]]:
    """Return the commands for what comes after a run, and what each does."""
    if answers.purpose == "resynthesis":
        return [(f"melmill export {answers.store} resynthesis OUT", "write the audio as files")]
    if answers.purpose == "evaluation":
        return [(f"melmill report {answers.store}", "show the scores, and where the page is")]
    return []


def _training(contents: Contents, answers: Answers) -> list[list[str]]:
    # float16 can't hold the range of linear mels.
    half = preset(answers.preset).log is not None
    dtype = [("dtype: float16", "half the size: enough to train on, not to judge by")] if half else []
    return [_recordings(contents, answers), _mel(answers, dtype)]


def _resynthesis(contents: Contents, answers: Answers) -> list[list[str]]:
    source = _recordings(contents, answers) if contents.n_mels is None else _mels(contents, answers)
    mel = [_mel(answers)] if contents.n_mels is None else []
    quality = ("quality: good", "draft, good or best; or a vocoder: uses: vocoder, checkpoint: FILE")
    return [source, *mel, _node("resynthesis", [("uses: invert", ""), ("from: mel", ""), quality])]


def _evaluation(contents: Contents, answers: Answers) -> list[list[str]]:
    groups = [name for name, there in (("subset", contents.has_subsets), ("speaker", contents.n_speakers)) if there]
    return [
        _recordings(contents, answers),
        _mel(answers),
        _node("gla", [("uses: griffin_lim", ""), ("from: mel", ""), ("n_iter: 50", "")]),
        _node(
            "admm", [("uses: admm", ""), ("from: mel", ""), ("n_iter: [10, 50]", "a list makes a node for each value")]
        ),
        _node("best", [("uses: invert", ""), ("from: mel", ""), ("quality: good", "draft, good or best")]),
        _node(
            "scores",
            [
                ("uses: score", ""),
                ("from: [gla, admm, best]", ""),
                ("against: speech", ""),
                ("metrics: [pesq_wb, estoi, scm, sc]", "docs/metrics.md explains all"),
            ],
        ),
        _node(
            "report",
            [
                ("uses: aggregate", ""),
                ("from: scores", ""),
                ("baseline: gla", "the others are compared with it"),
                (f"by: [{', '.join(groups)}]", "groups below the whole"),
            ],
        ),
    ]


def _recordings(contents: Contents, answers: Answers) -> list[str]:
    fields = [(f"uses: {contents.layout.uses}", "")]
    for name, value in contents.layout.fields.items():
        text = as_yaml(value) if isinstance(value, str) else f"[{', '.join(map(as_yaml, value))}]"
        fields.append((f"{name}: {text}", _EXPLAINED.get(name, "")))
    fields.append((f"sr: {answers.sr}", "rate to store, Hz; other files are resampled"))
    return _node("speech", fields)


def _mel(answers: Answers, more: Sequence[tuple[str, str]] = ()) -> list[str]:
    mel = (f"preset: {answers.preset}", "any field of the mel can be set beside it; see `melmill mel show`")
    return _node("mel", [("uses: extract", ""), ("from: speech", ""), mel, *more])


def _mels(contents: Contents, answers: Answers) -> list[str]:
    fields = [
        ("uses: mel_folder", ""),
        (f"root: {as_yaml(str(contents.layout.fields['root']))}", ""),
        (f"preset: {answers.preset}", "how the mels were made: it must be what made them"),
    ]
    n_mels = contents.n_mels or 0
    if preset(answers.preset).n_mels != n_mels:
        fits = presets_of(n_mels)
        if fits:
            raise PipelineError(
                f"--preset {answers.preset} has {preset(answers.preset).n_mels} bands, but the mels in "
                f"{contents.layout.fields['root']!r} have {n_mels}: choose among {', '.join(fits)}"
            )
        fields.append((f"n_mels: {n_mels}", "no preset has so many: set the other fields too"))
    fields.append((f"layout: {contents.layout.fields['layout']}", "order of the axes"))
    return _node("mel", fields)


def _node(name: str, fields: Sequence[tuple[str, str]]) -> list[str]:
    return [f"  {name}:", *(_commented(f"    {field}", comment) for field, comment in fields)]


def _commented(line: str, comment: str) -> str:
    return f"{line:<{_COMMENT}}  # {comment}" if comment else line
