"""The iterative methods: a module a method, each an object of its parameters, with its equations.

`melmill.stages.numeric.compiled` iterates them on the CPU.
"""

from melmill.stages.numeric.solvers.admm import Admm
from melmill.stages.numeric.solvers.admm_gla import AdmmGla
from melmill.stages.numeric.solvers.auto import Quality, auto
from melmill.stages.numeric.solvers.griffin_lim import GriffinLim
from melmill.stages.numeric.solvers.ipalm import Ipalm
from melmill.stages.numeric.solvers.raar import Raar

Method = Admm | AdmmGla | GriffinLim | Ipalm | Raar

__all__ = ["Admm", "AdmmGla", "GriffinLim", "Ipalm", "Method", "Quality", "Raar", "auto"]
