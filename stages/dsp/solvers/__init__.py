"""Iterative inverters: a module a method, each a parameter object and one step in its paper's symbols."""

from melmill.stages.dsp.solvers.admm import Admm
from melmill.stages.dsp.solvers.admm_gla import AdmmGla
from melmill.stages.dsp.solvers.griffin_lim import GriffinLim
from melmill.stages.dsp.solvers.ipalm import Ipalm
from melmill.stages.dsp.solvers.method import Bank, Method
from melmill.stages.dsp.solvers.raar import Raar

__all__ = ["Admm", "AdmmGla", "Bank", "GriffinLim", "Ipalm", "Method", "Raar"]
