"""The CPU engine: the iterative methods and their starts as compiled passes over `melmill.stages.numeric.lanes`.

Importing its modules imports numba.
"""
