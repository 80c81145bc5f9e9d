"""The solvers: a module for each, which holds its parameters and its equations.

A module added here is found by itself. `melmill.stages.numeric.compiled` and
`melmill.stages.numeric.batched` have a module for each solver too, which computes it.
"""
