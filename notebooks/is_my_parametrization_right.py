# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Is my parametrization right?
#
# In the maximal update parametrization (muP) the best learning rate of a narrow network is that of a wide one. It is
# easy to get wrong: one rate that is not divided by the width, one multiplier that is missing, and nothing says so. The
# usual test is a *coordinate check*: train a few steps at several widths, and look whether the coordinates of every layer
# keep their size. `tp.coord_check` does this for any network, knows what each size *should* be, and says what is wrong.
# The `assert` statements are part of the text: if this page were wrong, it would not run.

# %%
import os

import matplotlib.pyplot as plt
import numpy as np

import tensorprog as tp

SMALL = os.environ.get("TENSORPROG_SMALL", "") not in ("", "0")
sizes = {"widths": [32, 64, 128, 256] if SMALL else [64, 128, 256, 512, 1024], "seeds": 3 if SMALL else 8}
rng = np.random.default_rng(0)
n = tp.Width("n")
plt.rcParams["figure.dpi"] = 80
plt.switch_backend(plt.get_backend())  # a page shows figures that pyplot did not make

# %% [markdown]
# ## A network that is right
#
# Attention over three positions, layer norm with a trained gain, and a readout, trained by Adam on four sequences.

# %%


def network(factor=1):
    e = tp.dense("embedding", tp.Input("x", axes=("t",)), n)
    q, k, v = [tp.dense(name, e, n, W_std=2) for name in ("query", "key", "value")]
    h = e + tp.dense("out", tp.attention(factor * q, k, v), n)
    h = tp.layer_norm(h, gain="gain")
    return tp.Network(tp.readout("readout", tp.mean(tp.relu(h), "t")))


X, y = rng.standard_normal((4, 3, 5)), rng.standard_normal(4)
training = {"optimizer": tp.Adam(), "lr": 0.05}
right = tp.coord_check(network(), X, y, **training, **sizes)
right

# %% [markdown]
# A row is a size: `measured` is its exponent of the width $n$, fitted over widths and seeds; `predicted` comes from the
# program of training itself, without running it; `right` is what muP asks for. An *update* is what all steps so far have
# done to a layer, on the input it had at first. Logits and output are of order $n^{-1/2}$ at first, and that is right: they
# are sums over independent weights, divided by $n$. Once these are trained, they are of order one; on the way there a size
# is called `transient`, and does not fail.

# %%
assert right.passed
right.plot()

# %% [markdown]
# ## A rate that is not scaled
#
# Under Adam the rate of hidden matrices must fall like $1/n$. `tp.Exponents(c=..)` says that one does not: the rate of `value`
# is $\eta\, n^{0}$. At the smallest width this is the very same network.

# %%
unscaled = tp.coord_check(network(), X, y, parametrization=tp.Exponents(c={"value": 0}), **training, **sizes)
print(unscaled)

# %%
assert unscaled.passed is False
assert "c={'value': 1}" in unscaled.reasons[0]
unscaled.plot()

# %% [markdown]
# Only `value` and what comes after it go wrong, and the update of `value` is what is off by one power. Everything else
# moves as much as before, since each update is looked at on its own.
#
# ## Attention with $1/\sqrt{d}$
#
# Here no exponent of a parameter is wrong, the network is: logits are divided by $\sqrt{d}$. Queries and keys are
# independent at first, and nothing shows. Training correlates them, and then logits are of order $\sqrt{n}$. How soon that is
# seen depends on the width and the rate; the program knows it before.

# %%
base = sizes["widths"][0]
root = base**-0.5 / tp.inverse_sqrt(n)  # (n / base)^(1/2), so that it is the same network at the smallest width
sqrt = tp.coord_check(network(root), X, y, **training, **sizes)
print(*[row.reason for row in sqrt.failed], "", *sqrt.reasons, sep="\n")

# %%
assert sqrt.passed is False
assert sqrt["logits", "change"].predicted == 0.5
assert "divide by d" in sqrt.reasons[0]

# %% [markdown]
# ## What a parametrization does, without any run
#
# `tp.classify` of a network takes the exponents from its program alone: stable, learning features, or following a kernel.

# %%
print(tp.classify(network(), parametrization="ntk", X=X))

# %%
assert tp.classify(network(), X=X, optimizer=tp.Adam()).feature_learning
assert tp.classify(network(), X=X, parametrization="ntk").feature_learning is False
assert not tp.classify(network(root), X=X, optimizer=tp.Adam()).stable

# %% [markdown]
# ## Your own numbers
#
# Sizes that were measured elsewhere, in PyTorch say, are judged by the roles of layers. Here they are those of a model whose
# flags for muP were set after it was built, so that nothing was scaled: a report that users of other packages have made.

# %%
table = [
    {"layer": layer, "width": width, "step": step, "seed": seed, "size": 0.5 * (width / 128) ** (p if step else 0)}
    for layer, p in {"embedding": 0, "mlp": 1, "logits": 1, "head": 1}.items()
    for width in (128, 256, 512, 1024)
    for step in (0, 1, 3)
    for seed in range(2)
]
roles = {"embedding": "input", "mlp": "hidden", "logits": "logits", "head": "output"}
mine = tp.coord_check(measurements=table, roles=roles)
print(*mine.reasons, sep="\n")

# %%
assert mine.passed is False
