"""Forward covariances of a relu network on data: the Gaussian process kernel, layer by layer.

    h1 = U xi + b1,   x1 = relu(h1),   h2 = W2 x1 + b2,   x2 = relu(h2),   ...

U has entries of variance `weight_var`/d, W2, W3, ... of variance `weight_var`/n, biases have variance `bias_var`. The
output `layer_l` is the matrix of x_l(xi).x_l(xi')/n over the images. With C0 = xi.xi'/d its limit is the recursion

    C_l(xi, xi') = E relu(u) relu(u'),   (u, u') ~ N(0, weight_var C_(l-1) + bias_var),

    E relu(u) relu(u') = sqrt(a b)/(2 pi) (sqrt(1 - c^2) + c (pi - arccos c)),   a, b the variances, c the correlation.

With both variances 1 the diagonal is s/2 + 1/2 in layer 1 and s/4 + 3/4 in layer 2, s = |xi|^2/d.

`data` is an array (images, d), a nested list, or the path of an .npy file with one; by default the first `images` of
the handwritten digits in the package, centred and scaled to |xi|^2 = d.

formula:
    K1[i, j] = ArcCosineKernel(Sigma[i, i], Sigma[i, j], Sigma[j, j])
    layer_1[image, other] = K1[image, other]
    layer_2[image, other] = ArcCosineKernel(Sigma[image, image]/2 + 1, K1[image, other] + 1, Sigma[other, other]/2 + 1)

check_gia: simple True, bp_like True, holds True (no matrix is transposed).
check_regularity: covered True, Tensor Programs III, theorem 2.10 (no scalars in Nonlins, polynomially bounded
functions).

Source: Y. Cho and L. Saul, Kernel Methods for Deep Learning (NIPS 2009), equation (3) and below; the worked example
with its diagonal: G. Yang, Tensor Programs II (arXiv:2006.14548), appendix E.1.

Run:
    tensorprog limit programs/mlp_covariances.py --set images=5 --json
    tensorprog compare programs/mlp_covariances.py --set depth=3 weight_var=2 bias_var=0 --widths 64 256 1024 --seeds 16
    tensorprog limit programs/mlp_covariances.py --set "data=[[1, 0], [0, 1]]"
"""

import numpy as np

import tensorprog as tp
from tensorprog.data import digits


def build(data=None, images=10, depth=2, weight_var=1, bias_var=1):
    X = load(data, images)
    n = tp.Width("n")
    # U xi for all xi: jointly Gaussian initial vectors, so that the size d of the data is no width of the program
    h = tp.Vector("h1", n, axes=("image",), cov=weight_var * (X @ X.T) / X.shape[1] + bias_var)
    outputs = {}
    for layer in range(1, depth + 1):
        if layer > 1:
            W = tp.Matrix(f"W{layer}", n, n, var=weight_var)
            h = W @ x + tp.Vector(f"b{layer}", n, mean=0, var=bias_var)  # noqa: F821
        x = tp.relu(h)
        outputs[f"layer_{layer}"] = tp.moment(x * tp.rename(x, image="other"))
    return tp.Program(outputs)


def load(data, images):
    if data is None:
        X = digits()[0]
        X = (X - X.mean(axis=0))[:images]
        return X * np.sqrt(X.shape[1]) / np.linalg.norm(X, axis=1, keepdims=True)
    return np.asarray(np.load(data) if isinstance(data, str) else data, dtype=float)
