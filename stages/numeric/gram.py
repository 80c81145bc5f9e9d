"""Linear algebra on a bank's Gram matrix whose last bits are the same on every CPU.

BLAS and LAPACK take other kernels on other CPUs, which add in other orders: a matrix made by them once would give every
waveform made with it other last bits on another machine. Here the order is fixed. The matrices are of a bank's size,
and made once a process.
"""

from __future__ import annotations

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

Matrix = NDArray[np.float64]

# A row whose residual is less than this share of its energy depends on the rows before it: a bank's float32 weights
# leave 1e-14 where triangles are dependent, and 1e-3 where they are not.
_DEPENDENT = 1e-9


def product(A: NDArray[np.floating], B: NDArray[np.floating]) -> Matrix:
    """Return ``A B``, float64."""
    return np.asarray(np.einsum("ik,kj->ij", A, B, dtype=np.float64))


def spectral_norm(E: NDArray[np.floating]) -> float:
    """Return the largest singular value of a bank E ``(n_mels, n_bins)`` whose bands overlap direct neighbours alone.

    ``E E^T`` is tridiagonal then, and its largest eigenvalue is found by bisection.
    """
    E = E.astype(np.float64)
    diagonal, beside = np.sum(E * E, axis=1), np.sum(E[1:] * E[:-1], axis=1)
    largest = len(E) - 1
    eigenvalues = scipy.linalg.eigvalsh_tridiagonal(diagonal, beside, select="i", select_range=(largest, largest))
    return float(np.sqrt(eigenvalues[0]))


def factors(A: Matrix) -> tuple[Matrix, Matrix]:
    """Return L, with ones on its diagonal, and d, with ``A = L diag(d) L^T``, of a positive definite matrix ``(n, n)``.

    Raises
    ------
    numpy.linalg.LinAlgError
        A is not positive definite.
    """
    L, d = _unit_lower(A, 0.0)
    if not (d > 0).all():
        raise np.linalg.LinAlgError("the matrix is not positive definite")
    return L, d


def _unit_lower(A: Matrix, dependent: float) -> tuple[Matrix, Matrix]:
    """Factor a symmetric matrix; rows of which no more than that share is left by those before them have ``d = 0``."""
    rest, L, d = A.copy(), np.eye(len(A)), np.zeros(len(A))
    for j in range(len(A)):
        if rest[j, j] <= dependent * A[j, j]:
            continue
        d[j] = rest[j, j]
        L[j + 1 :, j] = rest[j + 1 :, j] / d[j]
        rest[j + 1 :, j + 1 :] -= np.multiply.outer(L[j + 1 :, j], rest[j + 1 :, j])
    return L, d


def inverse(A: Matrix) -> Matrix:
    """Return the inverse of a positive definite matrix; raise LinAlgError for any other."""
    L, d = factors(A)
    X = np.eye(len(A))
    for i in range(len(A)):
        X[i + 1 :] -= np.multiply.outer(L[i + 1 :, i], X[i])
    return product(X.T / d, X)


def independent(gram: Matrix) -> NDArray[np.bool_]:
    """Return which rows of a matrix, of that Gram matrix, depend on none before them."""
    return np.asarray(_unit_lower(gram, _DEPENDENT)[1] > 0)


def pseudo_inverse(E: Matrix) -> Matrix:
    """Return E's pseudo-inverse ``(n_bins, n_mels)``; rows of E ``(n_mels, n_bins)`` may be 0 or depend on others.

    With the independent rows E_1 of ``E = C E_1``, it is ``E_1^T (E_1 E_1^T)^-1 (C^T C)^-1 C^T``.
    """
    gram = product(E, E.T)
    kept = independent(gram)
    within = inverse(gram[np.ix_(kept, kept)])
    C = product(gram[:, kept], within)
    C[kept] = np.eye(len(within))
    onto = product(inverse(product(C.T, C)), C.T)
    return product(E[kept].T, product(within, onto))
