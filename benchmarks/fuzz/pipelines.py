"""Pipelines: made from the schema, then changed in structure and in text; and values of ``--set``."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import soundfile
import yaml

from benchmarks.fuzz.contract import Case, Kind, Wrong, check_message
from benchmarks.fuzz.mutating import mutated_text
from melmill.errors import Error
from melmill.flows.pipeline.graph import Node, build_graph
from melmill.flows.pipeline.schema import pipeline_schema
from melmill.flows.pipeline.spec import Pipeline, read
from melmill.flows.planning.plan import make_plan
from melmill.stages.contract import Kind as Product
from melmill.stages.registry import stage_class

# Values that YAML, a type or a range treats in a way of its own.
_SCALARS: Sequence[str] = (
    "", "~", "null", "Null", "true", "True", "yes", "no", "on", "off", "y", "N", "0", "-0", "1", "-1", "2", "100",
    "0100", "010", "0o17", "0x1F", "0b11", "1_000", "+12", "190:20:30", "1:30", "12:30:45", "1e5", "1e-5", "1.0e-5",
    "1E3",
    ".5", "5.", "-.5", "1.5", "0.0", "-0.0", ".inf", "-.inf", ".Inf", ".nan", ".NaN", "inf", "nan", "1e400", "1e-400",
    "9" * 400, "-" + "9" * 400, "9223372036854775807", "9223372036854775808", "4294967296", "2147483647",
    "1.7976931348623157e308",
    "2020-01-01", "2020-01-01T00:00:00Z", "2020-13-45", "<<", "=", "-", "?", ":", "#", "# x", "a #2", "a # b", "a: b",
    "- a", "[]", "{}", "[1, 2]", "[1, [2]]", "{a: 1}", "{1: 2}", "{[a]: b}", "{a: 1, a: 2}", "? a", "&a b", "*a",
    "&a [*a]", "!!str 1", "!!int x", "!!float 1", "!!binary aGk=", "!!binary x", "!!set {a}", "!!omap [a: 1]",
    "!!python/object:os.system {}", "!!timestamp x", "!!null x", "!x y", "!", "!<tag:yaml.org,2002:int> 1", "%YAML 1.2",
    "---", "...", "--- a", "'a'", '"a"', "'", '"', '"\\x00"', '"\\uD800"', '"\\U0010FFFF"', '"\\u2028"', '"\\e"', "|",
    ">", "@a", "`a",
    "\t", "a\tb", "a\x00b", "a\x7fb", "a\x85b", "a\u2028b", "\ufeffa", "a\u202eb", "a\nb", "\\", "~root", "~nobody/x",
    "$HOME", "${X}",
    "/dev/null", "..", ".", "a/b", "file:///x", "file://x", "memory://x", "memory:", "foo://x", "s3:/x", "C:\\x",
    "%", "1%", "50 %", "101%", "-1%", "1e400%", "nan%", "inf%", "0x10%", "\u0661\u0662", "\u00b2", "\uff11",
    "e\u0301", "\U0001f600",
    "paper", "hifigan", "cpu", "cuda", "any", "speech", "mel", "runs", "stages", "[]]", "[[[[", "{{{{", "[" * 300,
    "a" * 5000,
    "127.0.0.1:8787", "4GiB", "0B", "4 kB", "[cpu]", "local", "ssh", "slurm", "kubernetes",
)  # fmt: skip
_WORDS = (
    *_SCALARS,
    ": ",
    "\n",
    "\n  ",
    "  ",
    "- ",
    "[",
    "]",
    "{",
    "}",
    ",",
    "&x ",
    "*x",
    "<<: *x",
    "!!",
    "#",
    "|-\n",
    ">+\n",
    "\r\n",
    "\r",
)
_VALUES: Sequence[Any] = (
    None, True, False, 0, 1, -1, 2, 7, 1 << 31, 1 << 62, (1 << 63) - 1, 1 << 63, -(1 << 63), 10**400, 0.0, -0.0, 1.5,
    1e-300, 1e300,
    float("inf"), float("-inf"), float("nan"), "", " ", "a", "a b", "\x00", "\x7f", "\ud7ff", "\n", "~", "/", "..",
    "mel", "speech",
    [], [1], [1, 2], ["a"], [[]], [None], {}, {"a": 1}, {1: 2}, {None: None}, {True: 1}, b"bytes",
)  # fmt: skip
# A file system that is not this machine's would be asked over the network.
_URL = re.compile(r"(?<![A-Za-z0-9+.-])(?!(?:file|memory|foo)://)[A-Za-z][A-Za-z0-9+.-]*:(?:[^/\n]{0,2}/){2}")
_INT = re.compile(r"[-+]?[0-9]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")

# Values of the types of JSON Schema.
_PLAIN: Mapping[str, Sequence[Any]] = {
    "integer": (0, 1, 2, 3, 4, 7, 16, 80, 256, 1024, 16000, -1, 1 << 20, 1 << 40),
    "number": (0, 1, 0.0, 0.5, 0.99, 1.5, 1e-5, 1e9, -1.0, 7600.0, 1e300, -1e-300),
    "boolean": (True, False),
    "string": ("a", "corpus", "store", "paper", "4GiB"),
}

BASE = """\
name: fuzz
store: store
stages:
  speech: {uses: audio_folder, root: corpus}
  mel:    {uses: extract, from: speech, preset: paper}
  gla:    {uses: griffin_lim, from: mel, n_iter: 2}
cluster: {pools: {cpu: {workers: 1}}}
"""
# What the first nodes of a pipeline make.
_KINDS = {"speech": Product.WAVEFORM, "mel": Product.MEL, "gla": Product.WAVEFORM, "scores": Product.SCORES}
# Fields that --set is tried on, and the type that each has.
_FIELDS: Mapping[str, type] = {
    "name": str,
    "speech.sr": int,
    "mel.n_mels": int,
    "mel.fmin": float,
    "gla.n_iter": int,
    "gla.momentum": float,
    "gla.seed": int,
    "shard_duration_s": float,
    "time_limit_s": float,
}


def write_corpus(folder: Path) -> None:
    """Write two files of noise into the folder ``corpus``."""
    (folder / "corpus").mkdir()
    for name in ("a", "b"):
        soundfile.write(folder / "corpus" / f"{name}.wav", np.random.default_rng(0).normal(0, 0.1, 2000), 16000)


class Settings(Kind):
    """Values of ``--set``, compared with what YAML 1.2 reads in them."""

    name = "settings"

    def case(self, rng: Random) -> Case:
        """Return ``field=value`` of a field of `BASE`, or of any name."""
        field = rng.choice(list(_FIELDS))
        if rng.random() < 0.3:
            field = rng.choice(("stages", "store", "cluster", "cluster.pools", "mel.preset", "mel", "gla.from", "",
            "x", "gla.x.y", "a.b.c", ".", "speech.files", "speech.root", "max_quarantined",
            "cluster.pools.cpu.memory", "cluster.security", "cluster.dashboard", "cluster.type", "stages.x",
            "gla.device", "gla.pool"))  # fmt: skip
        value = rng.choice(_SCALARS)
        if rng.random() < 0.5:
            value = mutated_text(value, rng, _SCALARS, most=2)
        elif rng.random() < 0.3:
            value = _number(rng)
        text = f"{field}={value}" if rng.random() < 0.98 else field + value
        return Case("set", _local(text).encode("utf-8", "surrogatepass"))

    def judge(self, case: Case) -> bool:
        """Build the graph of `BASE` with the value, and compare the value of the field."""
        text = case.data.decode("utf-8", "surrogatepass")
        field, _, value = text.partition("=")
        try:
            pipeline = read(BASE, "fuzz.yaml", [text])
            nodes = build_graph(pipeline)
        except Error as error:
            check_message(error)
            return False
        if field in _FIELDS:
            _check_value(field, value, pipeline, nodes)
        return True


def _number(rng: Random) -> str:
    digits = "".join(rng.choice("0123456789._eE+-xob:") for _ in range(rng.randint(1, 6)))
    return rng.choice(("", "-", "+", "0", "0x")) + digits


def _local(text: str) -> str:
    """Return text that names no place outside this machine."""
    return _URL.sub("memory://", text)


def _check_value(field: str, value: str, pipeline: Pipeline, nodes: Mapping[str, Node]) -> None:
    """Raise Wrong if a plain scalar was taken for something that YAML 1.2 does not read in it."""
    plain = value.strip(" ")
    # A dash alone begins a sequence, here of nothing.
    if plain == "-" or not re.fullmatch(r"[\w.+-]+", plain, flags=re.ASCII):
        return
    node, _, name = field.rpartition(".")
    if node and len({other.folder for other in nodes.values()} & {node}) != 1:
        return
    made = [other for other in nodes.values() if other.folder == node]
    got = getattr(pipeline, name) if not node else _of_stage(made[0], name)
    wanted = core_value(plain)
    if _FIELDS[field] is str:
        right = got == plain
    elif isinstance(wanted, bool) or not isinstance(wanted, int | float):
        right = wanted is None and got is None
    else:
        right = got == wanted and (_FIELDS[field] is float or isinstance(wanted, int))
    if not right:
        raise Wrong(
            "a value is read as another than YAML 1.2 says", f"{field}={plain}: got {got!r}, YAML 1.2 reads {wanted!r}"
        )


def _of_stage(node: Node, name: str) -> Any:  # noqa: ANN401
    stage = node.stage
    return getattr(getattr(stage, "spec", stage), name, getattr(stage, name, None))


def core_value(plain: str) -> Any:  # noqa: ANN401 - a scalar of any type
    """Return what the core schema of YAML 1.2.2 (section 10.3.2) reads in a plain scalar.

    >>> core_value("0100"), core_value("yes"), core_value("1e-5"), core_value("0o17")
    (100, 'yes', 1e-05, 15)
    """
    if plain in ("", "~", "null", "Null", "NULL"):
        return None
    if plain in ("true", "True", "TRUE", "false", "False", "FALSE"):
        return plain.lower() == "true"
    if _INT.fullmatch(plain):
        return int(plain) if len(plain) < 4000 else plain
    if re.fullmatch(r"0o[0-7]+", plain):
        return int(plain[2:], 8)
    if re.fullmatch(r"0x[0-9a-fA-F]+", plain):
        return int(plain[2:], 16)
    return float(plain) if _FLOAT.fullmatch(plain) else plain


class Pipelines(Kind):
    """Whole pipelines."""

    name = "pipelines"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        write_corpus(folder)
        self.schema = pipeline_schema()

    def case(self, rng: Random) -> Case:
        """Return the text of a pipeline that follows the schema, or one that is changed."""
        document = yaml.safe_load(BASE) if rng.random() < 0.3 else self._document(rng)
        for _ in range(rng.choice((0, 0, 1, 2))):
            nodes = document.get("stages") if isinstance(document, dict) else None
            if rng.random() < 0.1 or not isinstance(nodes, dict) or not nodes:
                document = restructured(document, rng)
            else:
                node = rng.choice(list(nodes))
                nodes[node] = restructured(nodes[node], rng)
        flow = rng.choice((True, False, None))
        try:
            text = yaml.safe_dump(document, default_flow_style=flow, allow_unicode=rng.random() < 0.5, sort_keys=False)
        except yaml.YAMLError:
            text = BASE
        if rng.random() < 0.3:
            text = mutated_text(text, rng, _WORDS)
        return Case("pipeline.yaml", _local(text).encode("utf-8", "surrogatepass"))

    def judge(self, case: Case) -> bool:
        """Read the file, build its graph, and plan if its corpus is ours."""
        try:
            pipeline = read(case.data.decode("utf-8", "surrogatepass"), "pipeline.yaml")
            nodes = build_graph(pipeline)
            ours = [getattr(node.stage, "root", "corpus") == "corpus" for node in nodes.values()]
            if all(ours) and nodes and pipeline.store == "store":
                make_plan(pipeline)
        except Error as error:
            check_message(error)
            return False
        return True

    def _document(self, rng: Random) -> dict[str, Any]:
        """Return a pipeline of a corpus, and of one to four more nodes with some fields each."""
        defs = self.schema["$defs"]
        stages: dict[str, Any] = {
            "speech": {"uses": "audio_folder", "root": "corpus"},
            "mel": {"uses": "extract", "from": "speech"},
            "gla": {"uses": "griffin_lim", "from": "mel"},
            "scores": {"uses": "score", "from": "gla", "against": "speech"},
        }
        names = sorted(name.removeprefix("stage-") for name in defs if name.startswith("stage-"))
        for _ in range(rng.randint(1, 3)):
            uses = rng.choice(names)
            properties, inputs = defs[f"stage-{uses}"]["properties"], stage_class(uses).inputs
            wanted = [name for name in defs[f"stage-{uses}"].get("required", ()) if name not in inputs]
            wanted += rng.sample(sorted(properties), min(len(properties), rng.randint(0, 3)))
            node: dict[str, Any] = {"uses": uses}
            for port, taken in inputs.items():
                if not taken.optional or rng.random() < 0.3:
                    kinds = [name for name, kind in _KINDS.items() if kind in taken.kinds] or ["speech"]
                    node[port] = rng.choice(kinds)
            for name in wanted:
                if name != "uses" and (name not in inputs or rng.random() < 0.2):
                    node[name] = self._value(name, properties[name], rng, stages)
            stages[rng.choice((uses, uses, "gla", "x"))] = node
        document: dict[str, Any] = {"name": "fuzz", "store": "store", "stages": stages}
        for name in rng.sample(sorted(self.schema["properties"]), rng.randint(0, 2)):
            if name not in document:
                document[name] = self._value(name, self.schema["properties"][name], rng, stages)
        if rng.random() < 0.3:
            document["cluster"] = self._cluster(rng, stages)
        return document

    def _cluster(self, rng: Random, stages: Mapping[str, Any]) -> Any:  # noqa: ANN401
        defs = self.schema["$defs"]
        kind = rng.choice(sorted(name for name in defs if name.startswith("cluster-")))
        return self._value("cluster", defs[kind], rng, stages)

    def _value(self, name: str, schema: Mapping[str, Any], rng: Random, nodes: Mapping[str, Any]) -> Any:  # noqa: ANN401
        """Return a value that follows a schema as a rule; one of twelve does not."""
        if rng.random() < 0.08:
            return rng.choice(_VALUES)
        if name in ("from", "against", "audio", "mel", "vocoder", "scores") and rng.random() < 0.8:
            return rng.choice((*nodes, [*nodes]))
        if name == "root" and rng.random() < 0.8:
            return "corpus"
        if "$ref" in schema:
            return self._value(name, self.schema["$defs"][schema["$ref"].rpartition("/")[2]], rng, nodes)
        if "anyOf" in schema:
            return self._value(name, rng.choice(schema["anyOf"]), rng, nodes)
        if "enum" in schema:
            return rng.choice(schema["enum"])
        if "const" in schema:
            return schema["const"]
        kinds = schema.get("type", "")
        kind: str = rng.choice(kinds) if isinstance(kinds, list) else kinds
        if kind == "object":
            return self._mapping(schema, rng, nodes)
        if kind == "array":
            return [self._value(name, schema.get("items", {}), rng, nodes) for _ in range(rng.randint(0, 3))]
        return rng.choice(
            (*_PLAIN[kind], *nodes, rng.choice(_SCALARS)) if kind == "string" else _PLAIN.get(kind, (None,))
        )

    def _mapping(self, schema: Mapping[str, Any], rng: Random, nodes: Mapping[str, Any]) -> dict[str, Any]:
        properties = schema.get("properties", {})
        wanted = [*schema.get("required", ()), *rng.sample(sorted(properties), min(len(properties), rng.randint(0, 3)))]
        made = {name: self._value(name, properties[name], rng, nodes) for name in wanted if name in properties}
        if isinstance(schema.get("additionalProperties"), Mapping):
            key = rng.choice(("cpu", "gpu", "a", "any"))
            made[key] = self._value(key, schema["additionalProperties"], rng, nodes)
        return made


def restructured(document: Any, rng: Random) -> Any:  # noqa: ANN401 - YAML may hold anything
    """Return a document in which one value is replaced, removed, renamed, repeated or wrapped."""
    if isinstance(document, dict) and document and rng.random() < 0.85:
        key = rng.choice(list(document))
        changed = dict(document)
        match rng.randrange(8):
            case 0:
                del changed[key]
            case 1:
                changed[rng.choice(("x", f"{key}x", 1, None, "uses", "from", "name"))] = changed.pop(key)
            case 2:
                changed[key] = rng.choice(_VALUES)
            case _:
                changed[key] = restructured(changed[key], rng)
        return changed
    if isinstance(document, list) and document and rng.random() < 0.7:
        at = rng.randrange(len(document))
        return [*document[:at], restructured(document[at], rng), *document[at + rng.randint(0, 1) :]]
    return rng.choice((rng.choice(_VALUES), [document], {"a": document}, str(document)))
