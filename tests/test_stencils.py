"""Sums of shifted copies, in one pass for each copy or axis by axis: against sums written out."""

import itertools

import numpy as np
import pytest

from tensorprog.limits.simplify.stencil import Stencil, Term


def along(d, size, stride):
    """Where a shift by d goes, and where it starts: output positions whose source is there."""
    inside = [k for k in range(-(-size // stride)) if 0 <= stride * k + d < size]
    return (inside[0], inside[-1] + 1), stride * inside[0] + d, stride


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("lacking", [(), (0,), (1, 4)])
def test_nine_shifts(stride, in_place, lacking):
    """Nine shifts with one weight, or with several; axes along which an operand does not vary."""
    size, rng = 4, np.random.default_rng(0)
    n = -(-size // stride)
    full = [1 if k in lacking else size for k in range(4)]
    x = rng.standard_normal((*full, 3))
    wide = np.broadcast_to(x, (size,) * 4 + (3,))
    for weights in (np.full(9, 0.25), rng.standard_normal(9)):
        terms, plain, right = [], [], np.zeros((n,) * 4 + (3,))
        for (dh, dw), c in zip(itertools.product((-1, 0, 1), repeat=2), weights.tolist(), strict=True):
            (h, w) = along(dh, size, stride), along(dw, size, stride)
            if in_place and stride == 1 and dh == dw == 0:
                plain.append((0, c))
            else:
                terms.append(Term(0, *zip(h, w, h, w, strict=True), c))
            for p in itertools.product(range(n), repeat=4):
                source = [stride * k + d for k, d in zip(p, (dh, dw, dh, dw), strict=True)]
                if all(0 <= k < size for k in source):
                    right[p] += c * wide[tuple(source)]
        stencil = Stencil((n,) * 4, terms, plain)
        assert (stencil._passes is not None) == (len(set(weights)) == 1)
        np.testing.assert_allclose(stencil(x), right, rtol=0, atol=1e-14)
