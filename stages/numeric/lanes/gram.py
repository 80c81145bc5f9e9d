"""Linear algebra on a bank's Gram matrix whose last bits are the same on every CPU.

BLAS and LAPACK have other kernels for other CPUs, which add in other orders. A matrix made by them
would give every waveform other last bits on another machine. Here the order is fixed. The matrices
have a bank's size, and are made once in a process.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]

# A row depends on others that leave less than this share of its energy. A bank's float32 weights
# leave 1e-14 where triangles are dependent, and 1e-10 where they nearly are (80 bands in 201 bins).
# Others leave 1e-4 or more.
_DEPENDENT = 1e-9


def product(A: NDArray[np.floating], B: NDArray[np.floating]) -> Matrix:
    """Return ``A B``, float64."""
    return np.asarray(np.einsum("ik,kj->ij", A, B, dtype=np.float64))


def spectral_norm(E: NDArray[np.floating]) -> float:
    """Return the largest singular value of a bank E ``(n_mels, n_bins)``.

    Its bands overlap direct neighbours alone. So ``E E^T`` is tridiagonal, and bisection finds its
    largest eigenvalue.
    """
    import scipy.linalg  # here, as planning needs none of it

    E = E.astype(np.float64)
    diagonal, off_diagonal = np.sum(E * E, axis=1), np.sum(E[1:] * E[:-1], axis=1)
    largest = len(E) - 1
    eigenvalues = scipy.linalg.eigvalsh_tridiagonal(diagonal, off_diagonal, select="i", select_range=(largest, largest))
    return float(np.sqrt(eigenvalues[0]))


def factors(A: Matrix) -> tuple[Matrix, Matrix]:
    """Return L and d with ``A = L diag(d) L^T`` for a positive definite matrix ``(n, n)``.

    L is lower triangular, with ones on its diagonal.

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
    """Return L and d of a symmetric matrix.

    A row has ``d = 0`` if those before it leave no more than the share `dependent` of it.
    """
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
    """Return which rows of a matrix, of that Gram matrix, to keep so that none depends on the others.

    A row is dropped if those before it say it. Where rows are nearly alike, that may leave some that
    the others say: then rows are taken by what they add, the most first.
    """
    kept = np.asarray(_unit_lower(gram, _DEPENDENT)[1] > 0)
    alone = gram[np.ix_(kept, kept)]
    # The share of a row that all others leave is one over its energy and its place in the inverse.
    if (np.diag(inverse(alone)) * np.diag(alone) < 1.0 / _DEPENDENT).all():
        return kept
    return _by_addition(gram)


def _by_addition(gram: Matrix) -> NDArray[np.bool_]:
    """Return the rows that a Cholesky factorisation with pivoting takes, of rows of unit energy."""
    energy = np.diag(gram)
    unit = 1.0 / np.sqrt(np.where(energy > 0, energy, 1.0))
    rest, kept = gram * np.multiply.outer(unit, unit), np.zeros(len(gram), dtype=bool)
    while not kept.all():
        added = np.where(kept, 0.0, np.diag(rest))
        j = int(np.argmax(added))
        if added[j] <= _DEPENDENT:
            break
        kept[j] = True
        rest = rest - np.multiply.outer(rest[:, j], rest[:, j]) / rest[j, j]
    return kept


def pseudo_inverse(E: Matrix) -> Matrix:
    """Return the pseudo-inverse ``(n_bins, n_mels)`` of a bank E ``(n_mels, n_bins)``.

    Rows of E may be 0 or depend on others. With the independent rows E_1 and ``E = C E_1``, it is
    ``E_1^T (E_1 E_1^T)^-1 (C^T C)^-1 C^T``.
    """
    gram = product(E, E.T)
    kept = independent(gram)
    within = inverse(gram[np.ix_(kept, kept)])
    C = product(gram[:, kept], within)
    C[kept] = np.eye(len(within))
    onto = product(inverse(product(C.T, C)), C.T)
    return product(E[kept].T, product(within, onto))
