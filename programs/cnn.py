"""A convolutional network on images, with global average pooling or a flattened readout.

    h_s = sum_k W_k x_(s+k) + b,   x_s = relu(h_s)             s a pixel, k the offsets of a 3 x 3 filter

W_k has entries of variance 2/(9 n): the fan-in counts the filter, and pixels outside the image are zero. The covariance of
two pixels of two images is the relu kernel of an average over shifts of the one before:

    Cov(h_s, h'_t) = 2/9 sum_k E x_(s+k) x'_(t+k) + b_std^2

`head` says how the pixels end: "pool" averages them, f = mean_s v.x_s / sqrt(n), and its kernels need all pairs of pixels;
"flatten" has one v for each of P pixels, f = sum_s v_s.x_s / sqrt(n P), and needs the pairs s = t alone. So it cannot
tell a convolution from a locally connected network.

check_gia: simple True, bp_like True, holds True (weights are shared by all pixels, and no matrix is transposed).

Source: Y. LeCun et al., Backpropagation Applied to Handwritten Zip Code Recognition (1989); G. Yang, Tensor Programs II
(arXiv:2006.14548), appendix E.3; that flattening loses the sharing: R. Novak et al., Bayesian Deep Convolutional
Networks with Many Channels are Gaussian Processes (arXiv:1810.05148), section 5.1.

Run:
    tensorprog kernel programs/cnn.py
    tensorprog kernel programs/cnn.py --set head=flatten
    tensorprog compare programs/cnn.py --widths 32 64 128 --seeds 16
"""

import tensorprog as tp
from tensorprog.data import digits


def build(head="pool", depth=2, b_std=0.1):
    n = tp.Width("n")  # channels
    x = tp.Input("x", axes=("h", "w"))
    for layer in range(1, depth + 1):
        x = tp.relu(tp.conv(f"W{layer}", x, n, filter=3, W_std=2**0.5, b_std=b_std))
    if head == "pool":
        return tp.Network(tp.readout("v", tp.global_avg_pool(x)))
    if head == "flatten":
        return tp.Network(tp.readout("v", x, over=("h", "w")))
    raise ValueError(f"head is {head!r}: give pool or flatten")


def data(images=3, size=4):
    X = digits()[0][:images].reshape(images, 8, 8) / 8 - 1
    step = 8 // size  # every second pixel by default
    return X[:, ::step, ::step, None]  # the last axis: one grey channel
