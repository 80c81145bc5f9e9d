"""The GPU engine: solvers on padded batches of utterances, as torch tensors on one device.

`melmill.stages.numeric.compiled` defines the results; the mathematics is the same. Magnitudes and
spectra are ``(B, T, F)``: utterance, frame, bin. What lies past an utterance's own frames is 0 and
stays 0 in every step. So one mask is enough, on the frames that are transformed. Importing the
modules imports torch and numba.
"""
