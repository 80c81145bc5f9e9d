"""What `melmill score` is asked for: names of systems, and the pipeline that is written."""

from __future__ import annotations

from pathlib import Path

import pytest

from melmill.flows.pipeline.errors import PipelineError
from melmill.flows.pipeline.graph import build_graph
from melmill.flows.pipeline.layouts import Contents, Layout
from melmill.flows.pipeline.spec import NODE_NAME, read
from melmill.flows.scoring.request import HEADER, Request, chosen_metrics, named_systems, pipeline_text
from melmill.stages.numeric.errors import ParameterError
from melmill.stages.score.metric import METRICS
from melmill.stages.score.stage import Score


@pytest.mark.parametrize(
    ("folders", "names"),
    [
        (["out/gen"], ["gen"]),
        (["out/gen/"], ["gen"]),
        (["a/wavs", "b/wavs"], ["a", "b"]),
        (["a/x/wavs", "b/x/wavs"], ["a", "b"]),
        # The last part tells two of three apart: only those that clash say more.
        (["a/wavs", "b/wavs", "other"], ["a-wavs", "b-wavs", "other"]),
        (["tts v1.2 (best)", "tts v1.2 (best)/../worst"], ["tts-v1-2-best", "worst"]),
        # Words that nodes of the pipeline have.
        (["out/scores", "out/speech"], ["out-scores", "out-speech"]),
        (["ours=out/a/wavs", "out/b/wavs"], ["ours", "wavs"]),
        (["s3://bucket/gen", "gs://bucket/gen"], ["s3", "gs"]),
        (["/音声/生成"], ["system"]),
    ],
)
def test_systems_are_called_after_their_folders(folders: list[str], names: list[str], tmp_path: Path) -> None:
    made = named_systems(folders, tmp_path)
    assert list(made) == names
    assert [folder.rpartition("=")[2] for folder in folders] == list(made.values())
    assert all(NODE_NAME.fullmatch(name) for name in made)


def test_a_folder_whose_name_has_an_equals_sign_is_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lr=1e-4").mkdir()
    monkeypatch.chdir(tmp_path)
    assert named_systems(["lr=1e-4"], tmp_path / "report") == {"lr-1e-4": "lr=1e-4"}


def test_names_that_were_given_stay_when_folders_are_added(tmp_path: Path) -> None:
    request = Request(reference="ref", systems=named_systems(["a/wavs"], tmp_path), output=tmp_path)
    request.pipeline_path.write_text(pipeline_text(request, dict.fromkeys(("speech", "wavs"), _contents())))
    assert list(named_systems(["a/wavs", "b/wavs"], tmp_path)) == ["wavs", "b-wavs"]
    assert list(named_systems(["x=a/wavs", "b/wavs"], tmp_path)) == ["x", "wavs"]


@pytest.mark.parametrize("given", [["scores=x"], {"a b": "x"}, {"_": "x"}])
def test_names_that_nodes_cant_have_are_refused(given: list[str] | dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match="can't name a system: use letters, digits"):
        named_systems(given, tmp_path)


def test_a_name_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match="two systems are called 'a': give each folder another NAME=FOLDER"):
        named_systems(["a=x", "a=y"], tmp_path)


@pytest.mark.parametrize("given", [["x", "x"], ["x", "./x/"], {"a": "x", "b": "x"}])
def test_a_folder_twice_is_refused(given: list[str] | dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match="is given twice: name each folder once, the recordings first"):
        named_systems(given, tmp_path)


def test_all_metrics_are_those_that_are_installed() -> None:
    assert chosen_metrics(["sc", "all"])[0] == "sc"
    assert set(chosen_metrics(["all"])) == {one.name for one in METRICS.values() if one.is_installed}
    assert chosen_metrics([]) == ("pesq_wb", "estoi", "scm", "sc")
    with pytest.raises(ParameterError, match="did you mean 'estoi'"):
        chosen_metrics(["estio"])


def _contents(**fields: object) -> Contents:
    layout = Layout(name="a folder of audio", uses="audio_folder", fields={"root": "ref", "folders": ("speaker",)})
    return Contents(**{"layout": layout, "n_files": 8, "rates": {22050: 8}, "duration_s": 60.0, **fields})  # type: ignore[arg-type]


def test_the_pipeline_says_all_that_was_asked_for(tmp_path: Path) -> None:
    request = Request(
        reference="ref", systems={"a": "out/a", "b": "out/b"}, output=tmp_path, metrics=("sc", "mcd"), preset="hifigan",
        lengths="cut", jobs=3,
    )  # fmt: skip
    text = pipeline_text(
        request, {"speech": _contents(n_speakers=2), "a": _contents(), "b": _contents(rates={24000: 8})}
    )
    assert text.startswith(HEADER)
    pipeline = read(text, "pipeline.yaml")
    nodes = build_graph(pipeline)
    assert list(nodes) == ["speech", "a", "b", "scores[a]", "scores[b]", "report"]
    scores = nodes["scores[a]"].stage
    assert isinstance(scores, Score)
    assert (scores.metrics, scores.preset, scores.lengths) == (("sc", "mcd"), "hifigan", "cut")
    assert (nodes["report"].parameters["baseline"], nodes["report"].parameters["by"]) == ("a", ["speaker"])
    assert [nodes[name].product.sr for name in ("speech", "a", "b")] == [22050, 22050, 24000]  # type: ignore[union-attr]
    assert pipeline.cluster.pools["cpu"].workers == 3
    assert Path(pipeline.store) == tmp_path / "store"


def test_large_corpora_have_larger_shards_and_keep_those_that_they_began_with(tmp_path: Path) -> None:
    request = Request(reference="ref", systems={"a": "a"}, output=tmp_path)
    small, large = _contents(), _contents(duration_s=1e6)
    assert "shard_duration_s: 300\n" in pipeline_text(request, {"speech": large, "a": large})
    request.pipeline_path.write_text(pipeline_text(request, {"speech": small, "a": small}))
    assert "shard_duration_s: 60\n" in pipeline_text(request, {"speech": large, "a": large})
