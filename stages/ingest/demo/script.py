"""The speakers and the sentences of the demo corpus; the sentences were written for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Speaker:
    """Describe a synthetic speaker, who reads one chapter.

    Parameters
    ----------
    speaker_id, chapter_id, subset : str
        As in the corpus; ids start above those of LibriSpeech.
    sex : {"F", "M"}
    voice : str
        Language and variant by eSpeak NG's names.
    rate_wpm, pitch : int
        See `melmill.stages.ingest.demo.espeak.Line`.
    level_db : float
        RMS of the speech, dBFS.
    sentences : tuple of str
    """

    speaker_id: str
    chapter_id: str
    subset: Literal["dev-clean", "test-clean"]
    sex: Literal["F", "M"]
    voice: str
    rate_wpm: int
    pitch: int
    level_db: float
    sentences: tuple[str, ...]


SPEAKERS = (
    Speaker(
        speaker_id="9001",
        chapter_id="500101",
        subset="dev-clean",
        sex="F",
        voice="en-us+f2",
        rate_wpm=155,
        pitch=52,
        level_db=-22.0,
        sentences=(
            "The lamp in the harbour office burned until the last boat was home.",
            "Nobody had thought to ask the ferryman.",
            "She counted the ropes twice, and each time one of them was missing.",
            "By noon the fog had thinned, and we could hear the bell beyond the reef.",
        ),
    ),
    Speaker(
        speaker_id="9002",
        chapter_id="500102",
        subset="dev-clean",
        sex="M",
        voice="en-us+m3",
        rate_wpm=150,
        pitch=45,
        level_db=-24.0,
        sentences=(
            "My grandfather measured rain with a jam jar and a wooden ruler.",
            "Three dry summers taught the village to share its wells.",
            "He wrote the figures in blue chalk on the inside of the cellar door.",
            "When the river rose again, we already knew how high it would climb.",
        ),
    ),
    Speaker(
        speaker_id="9003",
        chapter_id="500103",
        subset="dev-clean",
        sex="F",
        voice="en-gb-x-rp+f4",
        rate_wpm=165,
        pitch=58,
        level_db=-21.0,
        sentences=(
            "A good map shows you where the maker was afraid to walk.",
            "The valley looked gentle on paper, but the path was cruelly steep.",
            "We pitched the tent under an old oak, and argued about the stove.",
            "Joy is a warm kettle and dry socks.",
        ),
    ),
    Speaker(
        speaker_id="9004",
        chapter_id="500104",
        subset="dev-clean",
        sex="M",
        voice="en-gb-scotland+m7",
        rate_wpm=150,
        pitch=40,
        level_db=-26.0,
        sentences=(
            "The clockmaker opened his shop at nine, and closed it when the light failed; "
            "on Sundays he wound the church clock, which had never once been right.",
            "Every watch he mended carried a scratch no wider than a hair.",
            "Time, he used to say, is only patience with a louder voice.",
            "His daughter sold the tools but kept the scratched brass key.",
        ),
    ),
    Speaker(
        speaker_id="9005",
        chapter_id="500105",
        subset="test-clean",
        sex="F",
        voice="en-us+f1",
        rate_wpm=160,
        pitch=48,
        level_db=-21.0,
        sentences=(
            "The orchestra tuned for so long that the children fell asleep.",
            "Then a single oboe found the note, and forty strings agreed with it.",
            "I never forgot that sound.",
            "Outside, the trams were running late because of the snow.",
        ),
    ),
    Speaker(
        speaker_id="9006",
        chapter_id="500106",
        subset="test-clean",
        sex="M",
        voice="en-gb-x-rp+m1",
        rate_wpm=145,
        pitch=50,
        level_db=-23.0,
        sentences=(
            "Bees will forgive a clumsy keeper, but they never forget the smoke.",
            "We moved the hives at dusk, and walked slowly so as not to shake them. "
            "It took half the night, and in the morning they flew as if nothing had changed.",
            "The first honey of the year tasted of thyme.",
            "Choose your neighbours well, and plant clover between the rows.",
        ),
    ),
    Speaker(
        speaker_id="9007",
        chapter_id="500107",
        subset="test-clean",
        sex="F",
        voice="en-029+f3",
        rate_wpm=155,
        pitch=55,
        level_db=-25.0,
        sentences=(
            "Our library had one rule, which was written nowhere and kept by all.",
            "You returned a book with a pressed leaf on the page you loved.",
            "Some volumes grew so thick with leaves that they would not shut.",
            "That is how I learned which stories my teachers had needed.",
        ),
    ),
    Speaker(
        speaker_id="9008",
        chapter_id="500108",
        subset="test-clean",
        sex="M",
        voice="en-us+m6",
        rate_wpm=165,
        pitch=42,
        level_db=-24.0,
        sentences=(
            "The engine coughed, caught, and settled into a steady hum.",
            "Check the gauge before you trust the needle, and check it again after.",
            "Six hundred miles of straight road will teach anybody to sing.",
            "At the border they asked us for papers, and we offered them oranges.",
        ),
    ),
)
