"""The iterative methods: a module a method, each an object of its parameters, with its equations.

`melmill.stages.dsp.compiled` iterates them on the CPU.
"""

from melmill.stages.dsp.solvers.admm import Admm
from melmill.stages.dsp.solvers.admm_gla import AdmmGla
from melmill.stages.dsp.solvers.auto import Quality, auto
from melmill.stages.dsp.solvers.griffin_lim import GriffinLim
from melmill.stages.dsp.solvers.ipalm import Ipalm
from melmill.stages.dsp.solvers.raar import Raar

Method = Admm | AdmmGla | GriffinLim | Ipalm | Raar

__all__ = ["Admm", "AdmmGla", "GriffinLim", "Ipalm", "Method", "Quality", "Raar", "auto"]
