"""pipeline.yaml: what is refused, where, and what the message says."""

from __future__ import annotations

from pathlib import Path

import pytest

from melmill.flows.pipeline.errors import PipelineError
from melmill.flows.pipeline.graph import build_graph
from melmill.flows.pipeline.spec import load
from melmill.stages.ingest.reader import Reader

GOOD = """\
name: round-trip
store: runs/x
stages:
  speech: {uses: librispeech, root: data}
  mel: {uses: extract, from: speech, preset: paper}
  gla: {uses: griffin_lim, from: mel, n_iter: 10}
  scores: {uses: score, from: gla, against: speech, metrics: [scm]}
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "pipeline.yaml"
    path.write_text(text)
    return path


def test_a_good_pipeline_has_its_fields(tmp_path: Path) -> None:
    pipeline = load(written(tmp_path, GOOD))
    assert (pipeline.name, pipeline.store, pipeline.shard_duration_s) == ("round-trip", "runs/x", 300.0)
    assert list(build_graph(pipeline)) == ["speech", "mel", "gla", "scores"]


Case = tuple[str, str, int, str]  # what of GOOD is replaced, by what, the line of the error, and its message

NO_YAML: list[Case] = [
    ("n_iter: 10", "n_iter: 0100", 6, "must not begin with 0, got '0100', which is octal in YAML 1.1: write 100"),
    ("runs/x", "[1", 3, "not valid YAML"),
    ("name: round-trip", "name: a\nname: b", 2, "'name' is given twice"),
    ("  mel:", "  speech:", 5, "'speech' is given twice"),
]

# What is wrong by itself: form, names of stages and fields, types. The JSON Schema refuses these too.
BAD_FORM: list[Case] = [
    # form of the document
    ("name: round-trip", "nam: round-trip", 1, r"a pipeline has no field 'nam'; did you mean 'name'\?"),
    ("name: round-trip\n", "", 1, "needs the field 'name'"),
    ("name: round-trip", "name: 3", 1, "name must be text, got 3"),
    ("  mel:", "  store:", 5, "'store' can't name a node"),
    ("  mel:", "  'a b':", 5, "'a b' can't name a node"),
    ("store: runs/x", "store: runs/x\nshard_duration_s: 0", 3, "shard_duration_s must be positive, got 0"),
    ("store: runs/x", "store: runs/x\ntime_limit_s: 1.0e+10", 3, r"at most 31536000 \(a year\), got 10000000000"),
    ("store: runs/x", "store: runs/x\nshard_duration_s: 1.0e+6", 3, r"at most 86400 \(a day\), got 1000000"),
    ("store: runs/x", "store: runs/x\nmax_quarantined: 2", 3, "must be a share such as 1 % or 0.01, got 2"),
    ("{uses: griffin_lim, from: mel, n_iter: 10}", "griffin_lim", 6, "node 'gla' must be a mapping"),
    ("uses: griffin_lim, ", "", 6, "node 'gla' needs the field 'uses'"),
    # stages and their fields
    ("griffin_lim", "grifin_lim", 6, r"no stage is called 'grifin_lim'; did you mean 'griffin_lim'\?"),
    ("n_iter: 10", "momentun: 0.9", 6, "griffin_lim has no field 'momentun'; did you mean 'momentum'"),
    ("n_iter: 10", "n_iter: many", 6, "n_iter of griffin_lim must be a whole number, got 'many'"),
    ("n_iter: 10", "n_iter: 10.5", 6, "n_iter of griffin_lim must be a whole number, got 10.5"),
    ("n_iter: 10", "n_iter: true", 6, "n_iter of griffin_lim must be a whole number, got True"),
    ("n_iter: 10", "momentum: 0_1", 6, "got '0_1', which is text in YAML 1.2: write plain digits"),
    ("n_iter: 10", "n_iter: 1:40", 6, "got '1:40', which is text in YAML 1.2: write plain digits"),
    ("n_iter: 10", "n_iter: 0b1", 6, "got '0b1', which is text in YAML 1.2: write plain digits"),
    ("preset: paper", "center: yes", 5, "got 'yes', which is text in YAML 1.2: write true or false"),
    ("n_iter: 10", "n_iter: []", 6, "n_iter is an empty list"),
    ("preset: paper", "preset: papre", 5, "papre"),
    # the project
    ("name: round-trip", "name: ''", 1, "name must be the project's, got ''"),
    # ports
    ("from: mel, n_iter", "n_iter", 6, "node 'gla' needs the input 'from'"),
    ("from: mel, n_iter", "from: [], n_iter", 6, "from of 'gla' is an empty list"),
    ("from: mel, n_iter", "from: 3, n_iter", 6, "from of 'gla' must be text, got 3"),
    # cluster
    ("stages:", "cluster: {type: slrum}\nstages:", 3, r"no type is called 'slrum'; did you mean 'slurm'\?"),
    ("stages:", "cluster: {type: address}\nstages:", 3, "cluster needs the field 'address', such as address: tcp"),
    ("stages:", "cluster: {address: 'tcp://x:1'}\nstages:", 3, "'address' is for type 'address', got type 'local'"),
    ("stages:", "cluster: {pools: {cpu: {worker: 1}}}\nstages:", 3, "has no field 'worker'"),
]

# What only a stage, a block of the cluster or the graph can know.
BAD_MEANING: list[Case] = [
    ("n_iter: 10", "momentum: 1.5", 6, r"momentum must be in \[0, 1\), got 1.5"),
    # wiring
    ("from: mel", "from: mell", 6, r"from of 'gla' has no node 'mell'; did you mean 'mel'\?"),
    ("from: mel", "from: speech", 6, "from of 'gla' takes mel, but 'speech' makes utterances"),
    ("from: speech, preset", "from: gla, preset", 5, "cycle: mel -> gla -> mel"),
    ("n_iter: 10", "start: pgih", 6, r"start of 'gla' has no word or node 'pgih'; did you mean 'pghi'\?"),
    ("n_iter: 10", "pool: gpu", 6, "node 'gla' runs in pool 'gpu', but the cluster has only cpu"),
    # cluster
    ("stages:", "cluster: {pools: {cpu: {workers: 0}}}\nstages:", 3, "a pool needs at least one worker"),
]


@pytest.mark.parametrize(("old", "new", "line", "message"), [*NO_YAML, *BAD_FORM, *BAD_MEANING])
def test_bad_pipelines_name_the_line_and_the_fix(tmp_path: Path, old: str, new: str, line: int, message: str) -> None:
    assert old in GOOD
    path = written(tmp_path, GOOD.replace(old, new, 1))
    with pytest.raises(PipelineError, match=message) as caught:
        build_graph(load(path))
    assert str(caught.value).startswith(f"{path}:{line}: ")


def test_a_missing_file_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match=r"none\.yaml' can't be read: No such file"):
        load(tmp_path / "none.yaml")


def test_set_overrides_and_points_at_itself_in_errors(tmp_path: Path) -> None:
    path = written(tmp_path, GOOD)
    nodes = build_graph(load(path, ["gla.n_iter=50", "store=elsewhere", "cluster.pools.cpu.workers=3"]))
    assert nodes["gla"].stage.identity()["n_iter"] == 50
    with pytest.raises(PipelineError, match=r"^--set gla.n_iter=x: n_iter of griffin_lim must be a whole number"):
        build_graph(load(path, ["gla.n_iter=x"]))
    with pytest.raises(PipelineError, match=r"the pipeline has no node or field 'gal'; did you mean 'gla'\?"):
        load(path, ["gal.n_iter=1"])
    with pytest.raises(
        PipelineError, match=r"^--set gla=4: 'gla' is a node: name a field of it, such as gla.FIELD=VALUE"
    ):
        load(path, ["gla=4"])
    with pytest.raises(PipelineError, match="--set needs NAME=VALUE"):
        load(path, ["gla.n_iter"])


@pytest.mark.parametrize("written_as", ["~/corpus", "file://~/corpus"])
def test_home_is_expanded_wherever_a_place_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written_as: str
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    home = f"{tmp_path}/corpus"
    text = GOOD.replace("runs/x", written_as).replace("root: data", f"root: '{written_as}'")
    path = written(tmp_path, text)
    assert load(path).store == home
    assert load(path, ["store='~'"]).store == str(tmp_path)
    assert load(path, store="~/other").store == f"{tmp_path}/other"
    stage = build_graph(load(path))["speech"].stage
    assert isinstance(stage, Reader)
    assert stage.root == home
    listed = build_graph(load(path, ["speech.files=[~x]", f"speech.root={written_as}/"]))["speech"].stage
    assert isinstance(listed, Reader)
    assert (listed.root, listed.files) == (f"{home}/", ("~x",))


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("$HOME/x", r"can't hold a variable, got '\$HOME/x': write \$HOME out"),
        ("/data/${USER}/x", r"write \$\{USER\} out"),
        ("s3:/bucket/x", r"two slashes after the scheme, got 's3:/bucket/x': write s3://bucket/x"),
        ("file:/data/x", "write file:///data/x"),
        ("~nobody-of-this-name/x", r"unknown user, got '~nobody-of-this-name/x': write \./~nobody-of-this-name/x"),
        ("s4://bucket/x", r"unknown scheme 's4' \(did you mean s3://\? .*got 's4://bucket/x'"),
    ],
)
def test_a_place_that_would_be_taken_for_a_folder_name_is_refused(tmp_path: Path, place: str, message: str) -> None:
    with pytest.raises(PipelineError, match=f"pipeline.yaml:2: store .*{message}"):
        load(written(tmp_path, GOOD.replace("runs/x", place)))
    with pytest.raises(PipelineError, match=f"--store: store .*{message}"):
        load(written(tmp_path, GOOD), store=place)
    with pytest.raises(PipelineError, match=f"--set speech.root=.*: root of librispeech .*{message}"):
        build_graph(load(written(tmp_path, GOOD), [f"speech.root={place}"]))
    vocoder = GOOD + f"  voc: {{uses: vocoder, from: mel, checkpoint: '{place}'}}\n"
    with pytest.raises(PipelineError, match=f"pipeline.yaml:8: checkpoint of vocoder .*{message}"):
        build_graph(load(written(tmp_path, vocoder)))


@pytest.mark.parametrize("place", ["runs/x", "/data/a$5 b", "s3://bucket/x", "memory://x", "a~b", "./~x", "c:x"])
def test_other_places_stay_as_written(tmp_path: Path, place: str) -> None:
    assert load(written(tmp_path, GOOD), store=place).store == place


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("My corpus #2", "My corpus #2"),
        ("#2", "#2"),
        ("  a # b  ", "a # b"),
        ("a\nb", "a\nb"),
        ("a#b", "a#b"),
        ("'a # b'", "a # b"),
        ('"a"', "a"),
        ("!!str 5", "5"),
    ],
)
def test_set_takes_text_whole(tmp_path: Path, value: str, expected: str) -> None:
    stage = build_graph(load(written(tmp_path, GOOD), [f"speech.root={value}"]))["speech"].stage
    assert isinstance(stage, Reader)
    assert stage.root == expected


def test_set_still_takes_numbers_lists_and_nothing(tmp_path: Path) -> None:
    path = written(tmp_path, GOOD)
    nodes = build_graph(load(path, ["gla.n_iter=[5, 6]", "speech.subsets=", "speech.files=null"]))
    assert {"gla[n_iter=5]", "gla[n_iter=6]"} <= set(nodes)
    with pytest.raises(PipelineError, match="n_iter of griffin_lim must be a whole number, got '5 # few'"):
        build_graph(load(path, ["gla.n_iter=5 # few"]))


def test_an_error_of_an_override_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(PipelineError) as caught:
        load(written(tmp_path, GOOD), ["name=a\nb: c\x01"])
    assert str(caught.value).startswith(r"--set 'name=a\nb: c\x01':2: not valid YAML: it holds the control character")
    assert "\n" not in str(caught.value)
    with pytest.raises(PipelineError, match="smaller than 2\\^63") as caught:
        load(written(tmp_path, GOOD), [f"gla.n_iter={'9' * 4000}"])
    assert len(str(caught.value)) < 400


def test_a_list_fans_out_and_so_does_what_reads_it(tmp_path: Path) -> None:
    text = GOOD + "  report: {uses: aggregate, from: scores}\n"
    nodes = build_graph(load(written(tmp_path, text), ["gla.n_iter=[10, 20]", "gla.start=[random, zero]"]))
    assert [name for name in nodes if name.startswith("gla")] == [
        "gla[start=random,n_iter=10]",
        "gla[start=random,n_iter=20]",
        "gla[start=zero,n_iter=10]",
        "gla[start=zero,n_iter=20]",
    ]
    scored = [name for name in nodes if name.startswith("scores")]
    assert len(scored) == 4
    assert nodes["report"].inputs["from"] == tuple(scored)
    assert len({node.key for node in nodes.values()}) == len(nodes)


def test_a_node_can_be_the_starting_phase_of_another(tmp_path: Path) -> None:
    text = GOOD + "  again: {uses: griffin_lim, from: mel, start: [gla, zero]}\n"
    nodes = build_graph(load(written(tmp_path, text)))
    assert nodes["again[start=gla]"].inputs["start"] == ("gla",)
    assert "start" not in nodes["again[start=zero]"].inputs


@pytest.mark.parametrize("start", ["{word}", "[gla, {word}]"])
@pytest.mark.parametrize("word", ["pghi", "zero", "random"])
def test_a_node_with_the_name_of_a_word_is_refused_where_the_word_is_used(
    tmp_path: Path, word: str, start: str
) -> None:
    start = start.format(word=word)
    text = GOOD + f"  {word}: {{uses: raar, from: mel}}\n  again: {{uses: griffin_lim, from: mel, start: {start}}}\n"
    message = rf"pipeline.yaml:8: node '{word}' .* start: {word} \(.*pipeline.yaml:9\) would not be .*: rename the node"
    with pytest.raises(PipelineError, match=message):
        build_graph(load(written(tmp_path, text)))
    assert word in build_graph(load(written(tmp_path, text), ["again.start=gla"]))


def test_a_word_stays_a_word_beside_a_node_of_the_same_method(tmp_path: Path) -> None:
    text = GOOD + "  pghi: {uses: pghi, from: mel}\n  again: {uses: griffin_lim, from: mel, start: pghi}\n"
    nodes = build_graph(load(written(tmp_path, text)))
    assert nodes["again"].inputs == {"from": ("mel",)}


def test_keys_follow_what_decides_the_result_and_nothing_else(tmp_path: Path) -> None:
    def keys(*overrides: str) -> dict[str, str]:
        return {name: node.key for name, node in build_graph(load(written(tmp_path, GOOD), overrides)).items()}

    base = keys()
    # where things lie and run is not in the key
    assert keys("speech.root=elsewhere", "store=b", "cluster.pools.cpu.workers=7", "name=other") == base
    # a parameter changes its own key and those after it
    changed = keys("gla.n_iter=11")
    assert {name for name in base if base[name] != changed[name]} == {"gla", "scores"}
    # packing changes everything
    assert not set(keys("shard_duration_s=20").values()) & set(base.values())
