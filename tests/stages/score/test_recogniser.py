"""Recognisers of one's own: commands that hear file by file, and networks of tokens."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from melmill.stages.blame import Blame, blame
from melmill.stages.contract import StageFile, Waveform
from melmill.stages.errors import RecogniserFailed
from melmill.stages.numeric.errors import ParameterError
from melmill.stages.numeric.melspec import MelSpec
from melmill.stages.score.pair import Pair
from melmill.stages.score.recogniser import Recogniser, _running, decoded
from melmill.stages.score.stage import Score
from melmill.stages.score.status import Status

# Says of each file how many samples it has, and counts the files.
HEARS = """\
import sys, wave
for n, line in enumerate(sys.stdin):
    with wave.open(line.rstrip("\\n")) as file:
        print(f"file {n} of {file.getnframes()} samples at {file.getframerate()}", flush=True)
"""


@pytest.fixture
def command(tmp_path: Path) -> Any:
    def made(text: str) -> str:
        path = tmp_path / "hear.py"
        path.write_text(text)
        return f"{sys.executable} -S -E {path}"

    yield made
    _running.cache_clear()


def pair(seconds: float = 0.5, text: str = "a", sr: int = 16000) -> Pair:
    y = (0.1 * np.random.default_rng(0).standard_normal(round(seconds * sr))).astype(np.float32)
    return Pair(reference=None, reference_sr=sr, estimate=y, estimate_sr=sr, spec=MelSpec(), text=text)


def test_a_command_hears_file_by_file(command: Any) -> None:
    one = Recogniser(command=command(HEARS), sr=8000)
    assert one.heard(pair()) == "file 0 of 4000 samples at 8000\n"
    assert one.heard(pair(1.0)) == "file 1 of 8000 samples at 8000\n"  # the same process


def test_word_errors_count_what_it_hears(command: Any) -> None:
    stage = Score(
        metrics=("wer", "cer"),
        asr=Recogniser(command=command("import sys\nfor _ in sys.stdin: print('A b, c', flush=True)")),
    )
    wer, cer = stage._chosen
    assert (wer.is_installed, wer.lowest_sr) == (True, 16000)
    found = wer.measure(pair(text="a b d e"))
    assert (found.value, found.weight) == (0.5, 4)
    assert cer.measure(pair(text="a b c")).value == 0.0
    assert wer.measure(pair(text="")).status is Status.NO_TEXT


READS = "import sys, time\nsys.stdin.readline()\n"


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("sys.stderr.write('no model\\n'); sys.exit(3)", "ended with exit code 3; it says: no model"),
        ("time.sleep(60)", "took more than 0.5 s for one file"),
        ("print('a\\nb', flush=True); sys.stdin.readline()", "printed more than a line"),
        ("sys.stdout.buffer.write(b'\\xff\\n'); sys.stdout.flush(); sys.stdin.readline()", "not UTF-8"),
    ],
)
def test_a_command_that_fails_blames_the_machine(command: Any, script: str, message: str) -> None:
    one = Recogniser(command=command(READS + script), timeout_s=0.5)
    with pytest.raises(RecogniserFailed, match=re.escape(message)) as failed:
        one.heard(pair())
    assert blame(failed.value).blame is Blame.MACHINE
    # The next attempt starts it anew.
    Path(one.command.split()[-1]).write_text(HEARS)
    assert Recogniser(command=one.command).heard(pair()).startswith("file 0")


def test_a_command_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(RecogniserFailed, match=r"can't be started \(No such file"):
        Recogniser(command=str(tmp_path / "nothing")).heard(pair())


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "asr must have a command or a file"),
        ({"command": "hear", "file": "a.ts"}, "asr must have a command or a file"),
        ({"command": "hear 'a"}, "command can't be split as a shell would"),
        ({"command": "hear", "tokens": ("a", "b")}, "tokens are those of a network"),
        ({"file": "a.ts"}, "tokens must name the text of each token"),
        ({"file": "a.ts", "tokens": ("", "a"), "blank": 2}, "blank must"),
        ({"command": "hear", "timeout_s": 0.0}, "timeout_s must"),
    ],
)
def test_a_wrong_description_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ParameterError, match=re.escape(message)):
        Recogniser(**fields)


def test_it_needs_a_metric_of_words() -> None:
    with pytest.raises(ParameterError, match="asr has no use: add wer or cer"):
        Score(metrics=("sc",), asr=Recogniser(command="hear"))


def test_the_key_knows_the_command_and_no_time_limit() -> None:
    def identity(**fields: Any) -> Any:
        return Score(metrics=("wer",), asr=Recogniser(**fields)).identity()

    assert identity(command="hear") == identity(command="hear", timeout_s=1.0)
    assert identity(command="hear") != identity(command="hear -v")
    assert "pocketsphinx_installed" not in identity(command="hear")
    assert Score(metrics=("wer",)).identity()["versions"] == {"wer": 2}


class Levels(nn.Module):
    """Hear a token by the level of each 1,000 samples: none, ``a``, a space or ``b``."""

    def forward(self, y: Tensor) -> Tensor:
        level = y.unfold(1, 1000, 1000).abs().mean(dim=2)
        return -((level[..., None] - torch.tensor([0.0, 0.1, 0.2, 0.3])) ** 2)


def test_a_network_hears_tokens(tmp_path: Path) -> None:
    path = tmp_path / "levels.ts"
    torch.jit.script(Levels()).save(path)  # type: ignore[no-untyped-call]
    one = Recogniser(file=str(path), tokens=("", "a", "|", "b"))
    file = StageFile(url=str(path), data=path.read_bytes())
    stage = Score(metrics=("wer",), asr=one).prepared({"asr": file}, "digest")
    assert stage.identity()["programs"] == "digest"
    y = np.repeat(np.array([0.1, 0.1, 0.0, 0.1, 0.2, 0.3], dtype=np.float32), 1000)
    y[::2] *= -1
    heard = one.opened(file)(Pair(reference=None, reference_sr=16000, estimate=y, estimate_sr=16000, spec=MelSpec()))
    assert heard == "aa b"
    process = stage.opened(lambda: {"asr": file}).process
    from tests.stages.score.sets.test_stage import item

    one_item = item(from_=y)
    one_item = type(one_item)(utterance=one_item.utterance._replace(text="aa c"), inputs=one_item.inputs, seed=0)
    product = Waveform(node="made", sr=16000)
    (found,) = process([one_item], {"from": product}, stage.produces({"from": [product]}))
    assert found.row is not None
    assert found.row["wer"] == 0.5
    with pytest.raises(ParameterError, match="tells 4 tokens apart, and tokens names 3"):
        Recogniser(file=str(path), tokens=("", "a", "b")).checked(file)


def test_decoded_text() -> None:
    tokens = ("<pad>", "▁he", "llo", "▁you")
    assert decoded(np.array([0, 1, 1, 2, 0, 3, 3]), tokens, 0) == " hello you"
    assert decoded(np.array([], dtype=np.intp), tokens, 0) == ""
