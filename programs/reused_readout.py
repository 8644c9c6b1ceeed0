"""The readout vector is used inside the network as well, and gradient independence fails.

    z = erf(U xi),   h = W z + v,   f = v.erf(h) / sqrt(n)

The gradient dh = erf'(h) v is not odd in v, since h has v inside. So the product W.T dh remembers that h = W z:

    Z^(W.T dh) = Zhat + Z^z E[erf''(h) v],   E[erf''(h) v] = E erf'''(h) < 0,

and gradient independence drops the second term. It changes the part of the tangent kernel that comes from U (`--of ntk_U`,
by 7 percent), and that alone. With `reuse=False` an independent vector takes the place of v inside, and everything holds.

check_gia: simple False, bp_like False, holds False (v is used inside the network).

Source: G. Yang, Tensor Programs II (arXiv:2006.14548), condition 1 (Simple GIA Check): the output layer must not be used
anywhere else in the interior of the network.

Run:
    tensorprog kernel programs/reused_readout.py
    tensorprog gia programs/reused_readout.py --of ntk_U
    tensorprog gia programs/reused_readout.py --set reuse=False
    tensorprog compare programs/reused_readout.py --widths 64 256 1024 --seeds 32
"""

import tensorprog as tp


def build(reuse=True):
    n = tp.Width("n")
    z = tp.erf(tp.dense("U", tp.Input("x"), n))
    v = tp.Vector("v", n, mean=0, var=1, trainable=True)
    inside = v if reuse else tp.Vector("w", n, mean=0, var=1, trainable=True)
    h = tp.dense("W", z, n) + inside
    return tp.Network(tp.readout(v, tp.erf(h)))


def data():
    return [[1, 1], [1 / 2, -1]]
