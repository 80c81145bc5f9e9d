"""Reference tables, made from the objects that they describe.

A page asks for one with a comment of its own line, ``<!-- generated: stages invert -->``: the name of a function of
`TABLES` and its arguments.
"""

from __future__ import annotations

import ast
import inspect
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import MISSING, Field, fields, is_dataclass
from importlib.metadata import entry_points
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import click

import melmill
from docs.generate.docstrings import fields_of, markdown, read
from melmill.cluster.contract import ClusterSpec
from melmill.cluster.registry import cluster_type, cluster_types
from melmill.flows.cli.group import cli
from melmill.flows.exchange.sets.layout import LAYOUTS
from melmill.flows.pipeline.spec import Pipeline
from melmill.stages.contract import UNSET, Input, Stage, Unset
from melmill.stages.formats.format import FORMATS
from melmill.stages.ingest.reader import READERS, Reader
from melmill.stages.invert.priors import located, shipped_names, shipped_prior
from melmill.stages.numeric.melspec import MelSpec, StftParams
from melmill.stages.numeric.presets import preset_names, preset_of
from melmill.stages.prepare.filter import KeepRule
from melmill.stages.prepare.measures import MEASURES
from melmill.stages.registry import stage_class, stage_names
from melmill.stages.report.comparison.rules import Rule
from melmill.stages.score.metric import METRICS, Metric
from melmill.stages.score.status import Status

ROOT = Path(__file__).parents[2]
Row = tuple[str, ...]

FIELD_HEADER = ("field", "type", "default", "")
_OVERRIDES: Row = ("any [field of a mel](mels.md#fields)", "", "the preset's", "Overrides the preset's.")
# Stages of a group from which on what they share stands before them.
_MANY = 4
MARKER = re.compile(r"^<!-- generated: (?P<table>\w+)(?P<arguments>[^>]*?) -->$", flags=re.MULTILINE)
# What a docstring tells readers of the code; a page shows those fields.
_SEE_FIELDS = re.compile(r"For (?:the|its)(?: other)? fields\b[^.]*? see\b.*?`\.(?=\s|$)", flags=re.DOTALL)
# Folders of stages below others that have a page of their own.
_OWN_PAGES = ("features", "lint")
# Fields that every node has, whatever it uses; the graph takes them before the stage sees the rest.
_NODE_FIELDS = (
    ("uses", "the stage"),
    ("pool", "the worker pool: `cpu` by default, `gpu`, `any`, or another that the cluster declares"),
)


def filled(text: str) -> str:
    """Return a page with every marker replaced by its table; raise KeyError for a table that nobody makes."""
    return MARKER.sub(lambda found: TABLES[found["table"]](*found["arguments"].split()), text)


def own_stages() -> dict[str, type[Stage]]:
    """Return the stages that come with melmill by name."""
    groups = [group for group in entry_points().groups if group.startswith("melmill.")]
    installed = {entry.name for group in groups for entry in entry_points(group=group)}
    return {name: stage_class(name) for name in stage_names() if name not in installed}


def groups() -> dict[str, list[str]]:
    """Return the names of our own stages by the folder of `melmill.stages` that they are in.

    Some folders below those have pages, and groups, of their own.
    """
    found: dict[str, list[str]] = {}
    for name, cls in own_stages().items():
        # A class that was made from a description may have no module of its own.
        module = next(base.__module__ for base in cls.__mro__ if base.__module__.startswith("melmill.stages."))
        folders = module.split(".")[2:]
        group = next((folder for folder in folders[1:2] if folder in _OWN_PAGES), folders[0])
        found.setdefault(group, []).append(name)
    return found


def stages(group: str) -> str:
    """Describe every stage of a group: what it does, its inputs, its fields."""
    classes = {name: stage_class(name) for name in groups()[group]}
    rows = {name: _stage_rows(cls) for name, cls in classes.items()}
    every = [row for one in rows.values() for row in one]
    # One stage of another make does not hide what all others share.
    common = [row for row in dict.fromkeys(every) if len(rows) >= _MANY and every.count(row) >= len(rows) - 1]
    others = [name for name, one in rows.items() if not set(common) <= set(one)]
    whose = f"All but {', '.join(f'`{name}`' for name in others)}" if others else "All of them"
    parts = [f"{whose} have these fields:\n\n{table(FIELD_HEADER, common)}"] if common else []
    parts += [_stage(name, cls, set() if name in others else set(common)) for name, cls in classes.items()]
    return "\n\n".join(parts)


def node_fields() -> str:
    """List the fields that every node has."""
    return table(("field", ""), ((f"`{name}`", text) for name, text in _NODE_FIELDS))


def pipeline_fields() -> str:
    """List the fields of a pipeline."""
    said = fields_of(Pipeline)
    shown = {field.name: said[field.name] for field in fields(Pipeline) if field.name in said}
    names = [name for name in shown if name not in ("declarations", "document", "cluster")]
    rows = [(f"`{name}`", _cell(shown[name])) for name in names]
    return table(("field", ""), [*rows, ("`stages`", "The nodes by name."), ("`cluster`", "Where tasks run.")])


def rule_fields() -> str:
    """List the fields of a rule of a gate."""
    return table(FIELD_HEADER, _rows(Rule))


def keep_rule_fields() -> str:
    """List the fields of a rule of a filter."""
    return table(FIELD_HEADER, _rows(KeepRule))


def measures(kind: str) -> str:
    """List what rules of a filter measure: ``number`` or ``text``."""
    rows = [(f"`{name}`", one.says) for name, one in MEASURES.items() if one.is_text == (kind == "text")]
    return table(("measure", ""), rows)


def clusters() -> str:
    """List the types of cluster."""
    rows = []
    for name, cls in _cluster_types().items():
        first, _, _ = read(cls).text.partition("\n\n")
        traits = [text for text, has in (("encrypted", cls.encrypted), ("grows and shrinks", cls.adaptive)) if has]
        rows.append(
            (f"[`{name}`](#{name})", _cell(first), ", ".join(traits), f"`{cls.requirement}`" * bool(cls.requirement))
        )
    return table(("type", "what it is", "traffic, workers", "needs"), rows)


def cluster_fields() -> str:
    """List the fields of the `cluster:` block: those of all types, then those of each."""
    shown: set[str] = set()
    parts = [_block(ClusterSpec, "All types of cluster have these fields:", shown)]
    for name, cls in _cluster_types().items():
        parts += [f"### `{name}`", _block(cls, read(cls).text, shown)]
    return "\n\n".join(parts)


def mel_fields() -> str:
    """List the fields of a mel spec with their defaults."""
    shared = fields_of(StftParams)
    rows = [(name, kind, default, shared.get(name.strip("`"), text)) for name, kind, default, text in _rows(MelSpec)]
    return table(FIELD_HEADER, rows)


def presets() -> str:
    """List the presets with what they differ in most."""
    rows = []
    for name in preset_names():
        known = preset_of(name)
        mel, framing = known.spec, f"{known.spec.n_fft}/{known.spec.hop_length}"
        rows.append((f"`{name}`", known.project, mel.sr, mel.n_mels, framing, mel.log or "none", _cell(known.note)))
    return table(("preset", "project", "Hz", "bands", "FFT/hop", "log", ""), rows)


def golden_mels() -> str:
    """Count the presets that equal what their projects' own code answered, and list the errors."""
    found = _measured()["golden"]
    n_equal = sum(max(errors) <= 1e-5 for errors in found.values())
    counted = f"{n_equal} of {len(found)} presets with such an answer equal it to 1e-5, on both signals."
    rows = ((f"`{name}`", *(f"{error:.1e}" for error in errors)) for name, errors in found.items())
    return f"{counted}\n\n{table(('preset', 'speech', 'with gaps'), rows)}"


def mel_distances() -> str:
    """List the presets with those of the same shape: the equal ones, the nearest other, and how far it is."""
    rows = []
    for name, found in _measured()["distances"].items():
        equal = ", ".join(f"`{other}`" for other in found["equal"])
        nearest = "" if found["nearest"] is None else f"`{found['nearest']}`"
        rows.append((f"`{name}`", preset_of(name).project, equal, nearest, *_decibels(found)))
    return table(("preset", "project", "equal to", "nearest other", "dB", "farthest, dB"), rows)


def _decibels(found: Mapping[str, Any]) -> tuple[str, str]:
    return ("", "") if found["db"] is None else (f"{found['db']:.2f}", f"{found['farthest_db']:.1f}")


def transcoding() -> str:
    """Show the error of each pair of presets, dB: made by a row's, needed by a column's."""
    found = _measured()["transcoding"]
    names = list(found)
    marks = {"exact": "", "values": "", "magnitude": " m", "waveform": " w"}
    rows = [
        (f"`{a}`", *("" if a == b else f"{found[a][b][0]:.2f}{marks[found[a][b][1]]}" for b in names)) for a in names
    ]
    return table(("from", *(f"`{name}`" for name in names)), rows)


def vocoding() -> str:
    """Show what a vocoder scores on mels of other presets, given as they are and transcoded."""
    found = _measured()["vocoding"]
    rows = [("its own", *_scores(found["own"]), "", "")]
    rows += [(f"`{name}`", *_scores(before), *_scores(after)) for name, (before, after) in found["others"].items()]
    return table(("mel", "as it is: PESQ", "ESTOI", "transcoded: PESQ", "ESTOI"), rows)


def _scores(found: Sequence[float] | None) -> tuple[str, str]:
    return ("refused", "") if found is None else (f"{found[0]:.2f}", f"{found[1]:.3f}")


def _measured() -> dict[str, Any]:
    """Return what `python -m benchmarks.mels --write` measured."""
    measured: dict[str, Any] = json.loads((ROOT / "docs" / "assets" / "mels.json").read_text(encoding="utf-8"))
    return measured


def priors() -> str:
    """List the priors that come with melmill, with the mels that they serve."""
    rows = []
    for name in shipped_names():
        mel = shipped_prior(name).spec
        size_kb = round(Path(located(name)).stat().st_size / 1e3)
        bands = f"{mel.n_mels}, {mel.fmin:g} to {mel.top_hz:g} Hz"
        rows.append((f"`{name}`", mel.sr, bands, f"{mel.n_fft}/{mel.hop_length}", f"{size_kb:,} kB"))
    return table(("prior", "Hz", "bands", "FFT/hop", "file"), rows) if rows else "This version comes with none."


def metrics() -> str:
    """List the metrics."""
    rows = [(f"[{m.title}](#{_anchor(m.title)})", f"`{m.name}`", m.group, m.unit, m.better) for m in METRICS.values()]
    return table(("metric", "in a pipeline", "group", "unit", "better"), rows)


def metric_texts() -> str:
    """Describe every metric below a heading of its own."""
    return "\n\n".join(_metric(m) for m in METRICS.values())


def statuses() -> str:
    """List the statuses of a score."""
    return table(("status", "meaning"), ((f"`{status.value}`", status.says) for status in Status))


def corpora() -> str:
    """List the readers of published corpora, with the facts that they state."""
    rows = []
    for name, reader in _readers().items():
        facts = reader.facts
        if facts is not None:
            links = ", ".join(f"[page]({url})" for url in facts.url.split(" and "))
            title = f"[`{name}`](#{name}) {reader.title} ({links})"
            fetched = "yes" if facts.downloads else ""
            texts = f"{facts.texts}. {facts.quirks}".rstrip()
            rows.append((title, facts.language, facts.rate, _cell(facts.layout), _cell(texts), facts.licence, fetched))
    return table(("reader", "language", "Hz", "recordings", "texts and quirks", "licence", "fetch"), rows)


def descriptions() -> str:
    """List the readers of descriptions."""
    rows = [
        (f"[`{name}`](#{name})", f"{reader.title[:1].upper()}{reader.title[1:]}", _cell(reader.expects))
        for name, reader in _readers().items()
        if reader.facts is None and reader.title
    ]
    return table(("reader", "reads", "expects"), rows)


def layouts() -> str:
    """List the layouts of training sets."""
    rows = [
        (f"`{name}`", _cell(one.says), "yes" if one.takes_mel else "", _cell(one.read_by))
        for name, one in LAYOUTS.items()
    ]
    return table(("layout", "files", "mels", "read by"), rows)


def _readers() -> dict[str, type[Reader]]:
    return {name: READERS[name] for name in own_stages() if name in READERS}


def formats() -> str:
    """List the formats of exported files."""
    rows = [
        (f"`{f.name}`", f"`.{f.suffix}`", " or ".join(sorted(f.kinds)), " or ".join(map(str, f.bits)), _cell(f.says))
        for f in FORMATS.values()
    ]
    return table(("format", "files", "of", "bits", ""), rows)


def commands() -> str:
    """Describe every command of the command line."""
    return "\n\n".join(_command(path, command) for path, command in walk(cli, "melmill"))


def walk(command: click.Command, path: str) -> Iterable[tuple[str, click.Command]]:
    """Iterate over a command and all below it, with the words that call each."""
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in sorted(command.list_commands(context)):
            below = command.get_command(context, name)
            if below is not None:
                yield from walk(below, f"{path} {name}")


def errors() -> str:
    """List the errors and warnings of the Python API with what each means."""
    public = {name: getattr(melmill, name) for name in melmill.__all__ if not name.startswith("_")}
    found = {name: value for name, value in public.items() if isinstance(value, type) and issubclass(value, Exception)}
    rows = []
    for name, error in sorted(found.items(), key=lambda pair: [cls.__name__ for cls in reversed(pair[1].__mro__)]):
        first, _, _ = read(error).text.partition("\n\n")
        base = error.__base__.__name__ if error is not melmill.Error and error.__base__ else "Exception"
        rows.append((f"`{name}`", f"`{base}`", _cell(first)))
    return table(("class", "is a", "means"), rows)


def packages() -> str:
    """List the folders of code with what each holds."""
    rows = []
    for layer in ("storage", "stages", "cluster", "flows"):
        for init in sorted([ROOT / layer / "__init__.py", *(ROOT / layer).glob("*/__init__.py")]):
            module = ast.parse(init.read_text(encoding="utf-8"))
            first, _, _ = (ast.get_docstring(module) or "").partition("\n")
            rows.append((f"`{init.parent.relative_to(ROOT)}/`", _cell(markdown(first))))
    return table(("folder", "holds"), rows)


def file(path: str) -> str:
    """Show a file of the repository."""
    kind = Path(path).suffix.removeprefix(".")
    return f'```{kind} title="{path}"\n{(ROOT / path).read_text().rstrip()}\n```'


def table(header: Sequence[object], rows: Iterable[Sequence[object]]) -> str:
    """Return a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


TABLES: dict[str, Callable[..., str]] = {
    function.__name__: function
    for function in (
        stages, node_fields, pipeline_fields, rule_fields, clusters, cluster_fields, mel_fields, presets,
        golden_mels, mel_distances, transcoding, vocoding, metrics, metric_texts, statuses, formats, priors, errors,
        commands, packages, file, corpora, descriptions, layouts, keep_rule_fields, measures,
    )
}  # fmt: skip


def _cluster_types() -> dict[str, type[ClusterSpec]]:
    classes = {name: cluster_type(name) for name in cluster_types()}
    return {name: cls for name, cls in classes.items() if cls.__module__.startswith("melmill.")}


def _block(cls: type[Any], text: str, shown: set[str]) -> str:
    """Return the fields of a block and of the blocks in it, but for those that the page has shown."""
    known = {field.name for field in fields(ClusterSpec)} if ClusterSpec in cls.__mro__[1:] else set()
    inherited = [row for base in cls.__mro__[1:] if base.__name__ in shown for row in _rows(base)]
    rows = [row for row in _rows(cls) if row[0].strip("`") not in known and row not in inherited]
    shown.add(cls.__name__)
    blocks = dict.fromkeys(found for hint in get_type_hints(cls).values() for found in _blocks_in(hint))
    parts = [text, table(FIELD_HEADER, rows) if rows else "It has no fields of its own."]
    parts += [_block(b, f"`{b.__name__}`: {read(b).text}", shown) for b in blocks if b.__name__ not in shown]
    return "\n\n".join(parts)


def _blocks_in(hint: Any) -> Iterable[type[Any]]:  # noqa: ANN401 - an annotation may be anything
    if isinstance(hint, type) and is_dataclass(hint):
        yield hint
    for part in get_args(hint):
        yield from _blocks_in(part)


def _metric(m: Metric) -> str:
    unit = f", in {m.unit}" if m.unit else ""
    return "\n\n".join(
        (
            f"## {m.title}",
            f"`{m.name}` in a pipeline, column `{m.column}`{unit}; {m.better} is better.",
            m.says,
            f"*How*: {m.formula}",
            f"*Limits*: {m.limits}",
            f"*Reference*: {m.reference}",
            *([f"*Cost*: {m.cost}"] if m.cost else ()),
        )
    )


def _stage(name: str, cls: type[Stage], shared: set[Row]) -> str:
    parts = [f"### `{name}`", _SEE_FIELDS.sub("", read(cls).text).strip()]
    if own := [row for row in _stage_rows(cls) if row not in shared]:
        parts.append(table(FIELD_HEADER, own))
    return "\n\n".join(parts)


def _stage_rows(cls: type[Stage]) -> list[Row]:
    """Return the rows of a stage's inputs, then of its other fields."""
    defaults = {field.name: _default(field) for field in _parameters(cls)}
    said = fields_of(cls)
    inputs = [
        _input_row(port, given, defaults.get(port, MISSING), said.get(port, "") if given.values else "")
        for port, given in cls.inputs.items()
    ]
    return inputs + _rows(cls, defaults.keys() - cls.inputs.keys())


def _input_row(name: str, given: Input, default: object, says: str) -> Row:
    """Return the row of an input; a field of its name holds what may stand in place of a node."""
    takes = f"{'nodes' if given.many else 'node'} of kind {' or '.join(sorted(given.kinds))}"
    if given.other_corpus:
        takes += ", also of another corpus than the other inputs"
    words = ", ".join([f"`{word}`" for word in given.words] + ["text"] * given.values)
    shown = _shown(default) if default is not MISSING else "none" if given.optional else "required"
    return f"`{name}`", f"{takes}, or {words}" if words else takes, shown, _cell(f"input. {says}") if says else "input"


def _parameters(cls: type[Any]) -> list[Field[Any]]:
    return [field for field in fields(cls) if field.init and not field.name.startswith("_")]


def _rows(cls: type[Any], wanted: Iterable[str] | None = None) -> list[Row]:
    """Return a row for each parameter of a dataclass, or for those wanted: name, type, default and meaning.

    The fields that override a preset's have one row together.
    """
    said, hints = fields_of(cls), get_type_hints(cls)
    rows = []
    for field in _parameters(cls):
        default = _default(field)
        if default is UNSET:
            rows.append(_OVERRIDES)
        elif wanted is None or field.name in wanted:
            text = re.sub(r"\bNone\b", "null", said.get(field.name, ""))
            rows.append((f"`{field.name}`", _cell(f"`{_type(hints[field.name])}`"), _shown(default), _cell(text)))
    return list(dict.fromkeys(rows))


def _type(hint: Any) -> str:  # noqa: ANN401 - an annotation may be anything
    """Return a type as one would say it of YAML.

    >>> _type(tuple[str, ...] | None)
    'list of str or null'
    >>> _type(Literal["cpu", "cuda"])
    'cpu or cuda'
    """
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return " or ".join(_type(part) for part in arguments if part is not Unset)
    if origin is Literal:
        return " or ".join(map(str, arguments))
    if origin is tuple:
        count = "" if arguments[-1] is ... else f"{len(arguments)} "
        return f"list of {count}{_type(arguments[0])}"
    if origin in (dict, Mapping):
        return f"{_type(arguments[1])} by name"
    return "null" if hint is type(None) else str(hint.__name__)


def _default(field: Field[Any]) -> object:
    if field.default_factory is not MISSING:
        return field.default_factory()
    return field.default


def _shown(default: object) -> str:
    if default is MISSING:
        return "required"
    plain = list(default) if isinstance(default, tuple) else default
    if isinstance(plain, dict) or is_dataclass(plain):  # such as pools: a worker for each core of this machine
        return ""
    return f"`{plain}`" if plain not in (None, True, False, "") else f"`{json.dumps(plain)}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _anchor(title: str) -> str:
    """Return the anchor that the site gives a heading: punctuation leaves, and spaces become hyphens."""
    return re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", title).strip().lower())


def _command(path: str, command: click.Command) -> str:
    context = click.Context(command, info_name=path, **cli.context_settings)
    usage = command.get_usage(context).removeprefix("Usage: ")
    parts = [f"{'#' * min(len(path.split()) + 1, 4)} `{path}`", f"```text\n{usage}\n```", _help(command.help or "")]
    rows = [
        (_cell(" ".join(f"`{name}`" for name in option.opts)), _values(option), _cell(_option_help(option, context)))
        for option in command.get_params(context)
        if isinstance(option, click.Option) and not option.hidden and "--help" not in option.opts
    ]
    if rows:
        parts.append(table(("option", "takes", ""), rows))
    return "\n\n".join(part for part in parts if part)


def _help(text: str) -> str:
    r"""Return a command's help; a paragraph that click keeps as it is, after ``\b``, is a block of code."""
    paragraphs = []
    for paragraph in inspect.cleandoc(text).split("\n\n"):
        if not paragraph.startswith("\b"):
            paragraphs.append(markdown(" ".join(paragraph.split())))
            continue
        lines = paragraph.splitlines()[1:]
        lead = [lines.pop(0)] if lines and lines[0].startswith("Example") else []
        paragraphs.extend([*lead, "```sh\n" + inspect.cleandoc("\n".join(lines)) + "\n```"])
    return "\n\n".join(paragraphs)


def _option_help(option: click.Option, context: click.Context) -> str:
    record = option.get_help_record(context)
    return markdown(record[1]).replace("<", "&lt;") if record else ""


def _values(option: click.Option) -> str:
    if option.is_flag:
        return ""
    if isinstance(option.type, click.Choice):
        return " ".join(f"`{choice}`" for choice in option.type.choices)
    return f"`{option.metavar or option.type.name.upper()}`"
