"""An autoencoder with tied weights: x -> h = W x -> W.T relu(h), W and W.T in one forward pass.

The hidden layer has `ratio` times the width of the input; W has entries of variance `var`/n. With independent weights
the reconstruction y would have nothing in common with x. With tied ones Zy = Zhat + (ratio var / 2) Zx: the second term
is Zdot, 1/2 the mean derivative of relu. For x with iid N(0, 1) coordinates, r = `ratio` and s = `var`:

    output    limit                                at r = s = 1    untied (--gia)
    overlap   r s / 2               (of y with x)  1/2             0
    norm      r s^2/2 + r^2 s^2/4   (of y)         3/4             1/2
    loss      norm - 2 overlap + 1  (of y - x)     3/4             3/2

At ratio 1 the loss is smallest for var = 2/3, where it is 2/3: even untrained, tying beats the zero map's loss of 1.

formula:
    overlap = 1/2
    norm = 3/4
    loss = 3/4

check_gia: simple False, bp_like False, holds False (W and W.T both belong to the forward pass).
check_regularity: covered True, Tensor Programs III, theorem 2.10 (no scalars in Nonlins, polynomially bounded
functions).

Source: the rules ZHat and ZDot, G. Yang, Tensor Programs III (arXiv:2009.10685), Box 1, and its appendix F for the
factor `ratio` of a transposed rectangular matrix; E relu(z)^2 = E relu'(z) = 1/2 for a centred Gaussian of variance 1.

Run:
    tensorprog limit programs/tied_autoencoder.py --set ratio=1/2 var=2
    tensorprog compare programs/tied_autoencoder.py --widths 64 256 1024 --seeds 32
"""

import tensorprog as tp


def build(ratio=1, var=1):
    n = tp.Width("n")
    hidden = tp.Width("hidden", ratio=ratio)
    W = tp.Matrix("W", hidden, n, var=var)
    x = tp.Vector("x", n, mean=0, var=1)
    y = (W.T @ tp.relu(W @ x)).label("y")
    return tp.Program(overlap=tp.moment(x * y), norm=tp.moment(y * y), loss=tp.moment((y - x) ** 2))
