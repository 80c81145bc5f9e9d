"""Steps on the waveform that a recipe takes before its mel, as values of a mel spec."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields
from typing import Any, Literal

from melmill.stages.numeric.checks import check_bool, check_choice, check_float, check_int
from melmill.stages.numeric.errors import ParameterError

StepName = Literal["mean", "peak", "rms", "loudness", "clamp", "gain", "preemphasis", "highpass"]
STEPS: tuple[StepName, ...] = ("mean", "peak", "rms", "loudness", "clamp", "gain", "preemphasis", "highpass")

# Levels that a recipe may set only where a recording is above or below them.
_LEVELS = ("peak", "rms", "loudness")
_MAX_ORDER = 12


@dataclass(frozen=True, kw_only=True)
class WaveStep:
    """Say one step on a waveform before its mel.

    Parameters
    ----------
    step : str
        ``"mean"`` subtracts the mean. ``"peak"``, ``"rms"`` and ``"loudness"`` set a level.
        ``"clamp"`` limits samples. ``"gain"`` is a factor. ``"preemphasis"`` is the filter
        ``y[n] - value * y[n - 1]``. ``"highpass"`` is a Butterworth filter.
    value : float or None
        Peak, RMS, limit or factor, all of full scale 1; loudness, LUFS; coefficient of the
        pre-emphasis; cut-off of the high-pass, Hz. `mean` takes none.
    when : {"always", "above", "below"}
        Set a level always, or only where the recording is above or below it.
    order : int
        Order of the high-pass.
    both_ways : bool
        Run the high-pass forward and backward, so that it has no phase.

    Examples
    --------
    >>> WaveStep(step="preemphasis", value=0.97)
    WaveStep(step='preemphasis', value=0.97, when='always', order=5, both_ways=False)
    """

    step: StepName
    value: float | None = None
    when: Literal["always", "above", "below"] = "always"
    order: int = 5
    both_ways: bool = False

    def __post_init__(self) -> None:
        """Check every field and that they fit together."""
        check_choice("wave", self.step, STEPS)
        check_choice("wave", self.when, ("always", "above", "below"))
        _blamed(lambda: check_int("order", self.order, at_least=1, at_most=_MAX_ORDER))
        _blamed(lambda: check_bool("both_ways", self.both_ways))
        if self.step == "mean":
            if self.value is not None:
                raise ParameterError("wave", f"step 'mean' takes no value, got {self.value!r}: leave it out")
        elif self.value is None:
            raise ParameterError(
                "wave", f"step {self.step!r} needs a value, such as {{step: {self.step}, value: 0.95}}"
            )
        else:
            self._check_value(self.value)
        if self.when != "always" and self.step not in _LEVELS:
            raise ParameterError(
                "wave", f"when: {self.when} is for {', '.join(_LEVELS)}, got step {self.step!r}: leave it out"
            )

    def _check_value(self, value: float) -> None:
        name = f"step {self.step!r}: value"
        if self.step == "loudness":
            _blamed(lambda: check_float(name, value, at_least=-70, at_most=0))
        elif self.step == "preemphasis":
            _blamed(lambda: check_float(name, value, above=-1, below=1))
        else:
            _blamed(lambda: check_float(name, value, above=0))

    def as_dict(self) -> dict[str, Any]:
        """Return the fields that are not at their defaults, as plain values."""
        plain: dict[str, Any] = {"step": self.step}
        for field in fields(self):
            value = getattr(self, field.name)
            if field.default is not MISSING and value != field.default:
                plain[field.name] = float(value) if field.name == "value" else value
        return plain

    @property
    def is_filter(self) -> bool:
        """Whether it changes the spectrum's shape, not only the level."""
        return self.step in ("preemphasis", "highpass")

    def __str__(self) -> str:
        """Write the step in words.

        >>> str(WaveStep(step="peak", value=0.5, when="above"))
        'peak 0.5 where above'
        """
        words: list[str] = [self.step]
        if self.value is not None:
            words.append(f"{self.value:g}")
        if self.when != "always":
            words.append(f"where {self.when}")
        return " ".join(words)


def _blamed(check: Callable[[], None]) -> None:
    """Blame the field `wave` of a spec for one of the parameters of its steps."""
    try:
        check()
    except ParameterError as error:
        raise ParameterError("wave", str(error)) from error
