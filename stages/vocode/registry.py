"""Names of vocoder families and the modules behind them."""

from __future__ import annotations

import difflib
import importlib
from typing import TYPE_CHECKING

from melmill.stages.vocode.errors import VocoderError

if TYPE_CHECKING:
    from melmill.stages.vocode.family import Checkpoint, Family

# Each module holds a FAMILY. Imported when first needed: none is without torch. Asked in this order.
FAMILIES = {
    "hifigan": "melmill.stages.vocode.families.hifigan.network",
    "bigvgan": "melmill.stages.vocode.families.bigvgan.network",
    "vocos": "melmill.stages.vocode.families.vocos.network",
    "melgan": "melmill.stages.vocode.families.melgan.network",
    "univnet": "melmill.stages.vocode.families.univnet.network",
    "waveglow": "melmill.stages.vocode.families.waveglow.network",
    "wavegrad": "melmill.stages.vocode.families.wavegrad.network",
    "diffwave": "melmill.stages.vocode.families.diffwave.network",
    "wavenet": "melmill.stages.vocode.families.wavenet.layouts",
    "unfolded": "melmill.stages.vocode.families.unfolded.network",
    "exported": "melmill.stages.vocode.families.exported.program",
}


def family(name: str) -> Family:
    """Return the family called `name`; raise VocoderError with the nearest name where there is none."""
    if name not in FAMILIES:
        near = difflib.get_close_matches(name, FAMILIES, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise VocoderError(f"no vocoder family is called {name!r}{hint} (families: {', '.join(FAMILIES)})")
    found: Family = importlib.import_module(FAMILIES[name]).FAMILY
    return found


def recognise(checkpoint: Checkpoint) -> Family:
    """Return the one family that a checkpoint's keys speak of; raise VocoderError where none or several do."""
    found = [candidate for candidate in map(family, FAMILIES) if candidate.recognises(checkpoint)]
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(candidate.name for candidate in found)
        raise VocoderError(f"{checkpoint.name} could be of several families ({names}): say which, family=...")
    raise VocoderError(
        f"{checkpoint.name}: its {len(checkpoint.state)} tensors ({', '.join(list(checkpoint.state)[:3])}, ...) are of "
        f"no family known here (families: {', '.join(FAMILIES)})"
    )
