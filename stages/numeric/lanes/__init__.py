"""Compiled passes over sixteen frames side by side: each frame has a lane of a vector register.

A row of an array in *lane layout* is one bin, band or sample of `LANES` consecutive frames. A
spectrum is ``(n_groups, n_bins, 2, LANES)``, a magnitude ``(n_groups, n_bins, LANES)``. Group g
holds the frames from ``g LANES`` on. Every operation acts on whole rows. So FFTs, filter banks and
solves along a frame vectorise fully, and no frame's result depends on its neighbours in the group.
"""
