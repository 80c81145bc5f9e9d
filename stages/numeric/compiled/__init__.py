"""The CPU engine: mels, starts of inversions and solvers, as compiled passes over `lanes`.

It defines the results, to the byte. Importing its modules imports numba.
"""
