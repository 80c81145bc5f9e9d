"""The four steps of the graph, each by itself: wire, fan out, type, key."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from melmill.flows.pipeline.errors import PipelineError
from melmill.flows.pipeline.fan_out import Variant, fan_out
from melmill.flows.pipeline.graph import Node, build_graph, keyed, typed
from melmill.flows.pipeline.keys import key_parameters
from melmill.flows.pipeline.located import Located, parse
from melmill.flows.pipeline.pools import Route
from melmill.flows.pipeline.spec import Declaration, load
from melmill.flows.pipeline.wire import Wired, wire
from melmill.stages.contract import Mel, Product, Scores, Stage, Waveform
from melmill.stages.numeric.presets import preset
from melmill.stages.registry import stage_class

GriffinLim: Any = stage_class("griffin_lim")
PAPER = preset("paper")
CPU = Route(pool="cpu", asked="cpu")


def declared(text: str) -> list[Declaration]:
    stages = parse(text, "p").value
    return [
        Declaration(
            name=name,
            uses=node.value["uses"],
            fields={field: value for field, value in node.items() if field != "uses"},
            where=node.where,
        )
        for name, node in stages.items()
    ]


def variant(uses: str, inputs: Mapping[str, tuple[str, ...]], **fields: object) -> Variant:
    """Return a variant called ``x`` of a stage."""
    cls = stage_class(uses)
    ports = {port: tuple(Located(name, f"p:{port}") for name in names) for port, names in inputs.items()}
    located = {name: Located(value, "p:1") for name, value in fields.items()}
    wired = Wired(name="x", cls=cls, ports=ports, words={}, fields=located, route=CPU, where="p:1")
    return Variant(name="x", wired=wired, fields=located, inputs=inputs)


def node(name: str, product: Product, corpus: str = "speech") -> Node:
    """Return a node that makes `product`; what its stage is matters to no step."""
    stage: Stage = GriffinLim()
    return Node(
        name=name,
        folder=name,
        key=f"key of {name}",
        stage=stage,
        inputs={},
        product=product,
        corpora=(corpus,),
        route=CPU,
        where="p:1",
    )


SPEECH = node("speech", Waveform(sr=16000, corpus=True, node="speech"))
MEL = node("mel", Mel(spec=PAPER, node="mel"))
GLA = node("gla", Waveform(sr=16000, mel=PAPER, node="gla"))
NODES = {"speech": SPEECH, "mel": MEL, "gla": GLA}


def test_wiring_sorts_declarations_and_tells_words_from_names() -> None:
    wired = wire(
        declared(
            "again: {uses: griffin_lim, from: mel, start: [gla, zero], n_iter: [1, 2], pool: gpu}\n"
            "gla: {uses: griffin_lim, from: mel, start: pghi}\n"
            "mel: {uses: extract, from: speech}\n"
            "speech: {uses: librispeech, root: x}\n"
        ),
        ["cpu", "gpu"],
    )
    assert [one.name for one in wired] == ["speech", "mel", "gla", "again"]
    again = wired[-1]
    assert [entry.value for entry in again.sources] == ["mel", "gla"]
    assert {port: [entry.value for entry in entries] for port, entries in again.ports.items()} == {
        "from": ["mel"],
        "start": ["gla", "zero"],
    }
    # what is left are fields, with the device of the pool
    assert {name: value.plain() for name, value in again.fields.items()} == {"n_iter": [1, 2], "device": "cuda"}
    assert again.route == Route(pool="gpu", asked="gpu")


def test_an_empty_list_at_a_port_is_refused() -> None:
    with pytest.raises(PipelineError, match=r"^p:1: from of 'mel' is an empty list: name at least one node"):
        wire(declared("mel: {uses: extract, from: []}\n"), ["cpu"])


def test_fanning_out_takes_ports_before_fields_and_labels_only_what_differs() -> None:
    text = (
        "speech: {uses: librispeech, root: x}\n"
        "mel: {uses: extract, from: speech, preset: [paper, hifigan]}\n"
        "gla: {uses: griffin_lim, from: mel, n_iter: [1, 2], momentum: 0.5}\n"
        "scores: {uses: score, from: gla, against: speech, metrics: [sc, scm]}\n"
        "report: {uses: aggregate, from: [scores]}\n"
    )
    variants = {one.name: one for one in fan_out(wire(declared(text), ["cpu"]))}
    assert list(variants)[:7] == [
        "speech",
        "mel[preset=paper]",
        "mel[preset=hifigan]",
        "gla[mel[preset=paper],n_iter=1]",
        "gla[mel[preset=paper],n_iter=2]",
        "gla[mel[preset=hifigan],n_iter=1]",
        "gla[mel[preset=hifigan],n_iter=2]",
    ]
    second = variants["gla[mel[preset=paper],n_iter=2]"]
    assert second.inputs == {"from": ("mel[preset=paper]",)}
    assert {name: value.plain() for name, value in second.fields.items()} == {"n_iter": 2, "momentum": 0.5}
    # a field that is a list is one value, and a port that takes many takes all
    assert len([name for name in variants if name.startswith("scores")]) == 4
    assert len(variants["report"].inputs["from"]) == 4


def test_typing_makes_the_stage_and_names_the_product() -> None:
    made = typed(variant("griffin_lim", {"from": ("mel",)}, n_iter=7), NODES)
    assert made.stage == GriffinLim(n_iter=7)
    assert made.product == Waveform(sr=16000, mel=PAPER, node="x")
    assert made.corpora == ("speech",)


def test_scores_say_whose_they_are_by_themselves() -> None:
    product = typed(variant("score", {"from": ("gla",), "against": ("speech",)}), NODES).product
    assert isinstance(product, Scores)
    assert (product.scored, product.node) == ("gla", "x")
    alone = stage_class("score")().produces({"from": [GLA.product], "against": [SPEECH.product]})
    assert isinstance(alone, Scores)
    assert (alone.scored, alone.node) == ("gla", "")


@pytest.mark.parametrize(
    ("uses", "inputs", "message"),
    [
        ("extract", {}, r"^p:1: node 'x' needs the input 'from': the name of a node that makes waveform$"),
        # the place is that of the name, not of the node
        ("extract", {"from": ("mel",)}, "^p:from: from of 'x' takes waveform, but 'mel' makes mel$"),
        ("griffin_lim", {"from": ("mel",), "start": ("other",)}, "mixes utterances of 'speech' and 'elsewhere'"),
        ("griffin_lim", {"from": ("mel",), "start": ("fast",)}, "^p:1: node 'x': 'start' is at 22050 Hz but"),
        # of mels alone there is nothing to score against
        ("score", {"from": ("gla",), "against": ("mels",)}, "'mels' holds mels without recordings"),
        (
            "score",
            {"from": ("heard",)},
            "metrics pesq_wb, estoi, scm, sc compare with recordings, and no input 'against'",
        ),
    ],
)
def test_typing_checks_what_comes_in(uses: str, inputs: Mapping[str, tuple[str, ...]], message: str) -> None:
    nodes = NODES | {
        "elsewhere": node("elsewhere", Waveform(sr=16000, corpus=True), "elsewhere"),
        "other": node("other", Waveform(sr=16000), "elsewhere"),
        "fast": node("fast", Waveform(sr=22050)),
        "mels": node("mels", Mel(spec=PAPER), "mels"),
        "heard": node("heard", Waveform(sr=16000, mel=PAPER), "mels"),
    }
    with pytest.raises(PipelineError, match=message):
        typed(variant(uses, inputs), nodes)


def test_scores_may_pair_two_corpora() -> None:
    nodes = NODES | {"heard": node("heard", Waveform(sr=16000, mel=PAPER), "mels")}
    made = typed(variant("score", {"from": ("heard",), "against": ("speech",)}), nodes)
    # The rows are about the utterances of the first.
    assert (made.paired_port, made.corpora) == ("from", ("speech", "mels"))
    alone = typed(variant("score", {"from": ("gla",), "against": ("speech",)}), nodes)
    assert (alone.paired_port, alone.corpora) == (None, ("speech",))


def test_a_key_says_that_a_node_stands_at_a_port_of_words() -> None:
    assert key_parameters(GriffinLim(), ["from"])["start"] == "random"
    assert key_parameters(GriffinLim(), ["from", "start"])["start"] == "node"
    # the word that the port does not have decides nothing
    assert key_parameters(GriffinLim(start="zero"), ["start"]) == key_parameters(GriffinLim(), ["start"])


def test_keys_follow_inputs_and_refuse_a_second_one_of_a_declaration() -> None:
    one = typed(variant("griffin_lim", {"from": ("mel",)}), NODES)
    made = keyed(one, NODES, 300.0)
    assert (made.name, made.folder, made.inputs) == ("x", "x", {"from": ("mel",)})
    assert keyed(one, NODES, 60.0).key == made.key, "shards are what an ingest node makes"
    assert keyed(one, NODES | {"mel": node("mel", MEL.product)}, 300.0).key == made.key
    elsewhere = NODES | {"mel": keyed(typed(variant("extract", {"from": ("speech",)}), NODES), NODES, 300.0)}
    assert keyed(one, elsewhere, 300.0).key != made.key
    with pytest.raises(PipelineError, match="nodes 'x' and 'x' would make the same product"):
        keyed(one, NODES | {"x": made}, 300.0)


def test_the_steps_together_are_the_graph(tmp_path: Path) -> None:
    path = tmp_path / "pipeline.yaml"
    path.write_text(
        "name: x\nstore: x\nstages: {speech: {uses: librispeech, root: x}, mel: {uses: extract, from: speech}}"
    )
    pipeline = load(path)
    (speech, mel) = fan_out(wire(pipeline.declarations, pipeline.cluster.pools))
    nodes = {"speech": keyed(typed(speech, {}), {}, 300.0)}
    nodes["mel"] = keyed(typed(mel, nodes), nodes, 300.0)
    assert build_graph(pipeline) == nodes
