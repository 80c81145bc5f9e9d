"""The CPU engine: compiled passes that work on sixteen frames side by side, a frame a lane of a vector register.

A row of an array in *lane layout* is one bin, band or sample of `LANES` consecutive frames: a spectrum is
``(n_groups, n_bins, 2, LANES)``, a magnitude ``(n_groups, n_bins, LANES)``, group g holding the frames from
``g LANES``. Every operation acts on whole rows, so that FFTs, filter banks and solves along a frame vectorise fully,
and a frame's result never depends on its neighbours in the group.
"""
