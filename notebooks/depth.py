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
# # How deep can a network be?
#
# A layer that is repeated is a map: of the variance $q$ of its state, of the correlation $c$ of two states, and of the
# tangent kernel. What a thousand or a million layers do follows from the fixed points of that map. Here are its phases, the
# edge between them, and the rates at which tangent kernels forget their inputs there (Hayou, Doucet, Rousseau 2019). The
# `assert` statements are part of the text.

# %%
import os

import numpy as np
from matplotlib import pyplot as plt

import tensorprog as tp

SMALL = bool(os.environ.get("TENSORPROG_SMALL"))
GRID = 12 if SMALL else 120

# %% [markdown]
# ## Order and chaos
#
# With $\chi = \sigma_w^2 \, \mathbb E \phi'(\sqrt q z)^2$, the slope of the correlation map at 1, similar inputs become alike
# where $\chi < 1$ and different where $\chi > 1$. Either takes a number of layers, the depth scale. A network much deeper
# cannot tell its inputs apart, or cannot tell that they are similar: it does not train. On the edge the depth scale is infinite.

# %%
diagram = tp.phase_diagram(tp.tanh, b_std=np.linspace(0, 1, GRID), W_std=np.linspace(0.5, 3, GRID))
diagram.plot()
print(diagram)

# %% [markdown]
# The edge at $\sigma_b = 0.2$, to twelve digits. (Often quoted is the pair (0.2, 1.302), with which $\chi = 0.9988$: a network
# of depth 1000 is well inside the ordered phase.)

# %%
edge = tp.edge_of_chaos(tp.tanh, b_std=0.2)
print(edge)
assert abs(edge.W_std - 1.304145840056511) < 1e-12
quoted = tp.signal_propagation(tp.tanh, W_std=1.302, b_std=0.2)
assert abs(float(quoted.slope) - 0.998819) < 1e-6

# %% [markdown]
# ## The tangent kernel against depth
#
# Below, at and above the edge, for inputs of different correlations. In the ordered phase all kernels tend to one number: the
# kernel matrix becomes singular. In the chaotic phase the diagonal grows exponentially, the rest stays: the matrix becomes a
# multiple of the identity, and nothing is generalized. At the edge all grow like $L$, and their ratio stays away from 0 and 1.

# %%
depths = np.unique(np.round(np.logspace(0, 6, 61)).astype(int))
starts = [0.0, 0.5, 0.9, 1.0]
figure, axes = plt.subplots(1, 3, figsize=(12, 4), layout="constrained", sharex=True)
for ax, W in zip(axes, (1.0, edge.W_std, 2.0), strict=True):
    s = tp.signal_propagation(tp.tanh, W_std=W, b_std=0.2)
    K = s.ntk(depths, starts, relative=True)
    for j, c in enumerate(starts):
        shown = np.isfinite(K[:, j]) & (K[:, j] > 1e-2) & (K[:, j] < 1e7)
        ax.loglog(depths[shown], K[shown, j], "--" if c == 1 else "-", label=f"$c_0$ = {c:g}")
    ax.set(
        title=rf"{s.phase}: $\sigma_w$ = {W:.4g}, $\chi$ = {float(s.slope):.4g}", xlabel="depth $L$", ylim=(1e-2, 1e7)
    )
    ax.grid(color="0.92")
axes[0].set_ylabel("tangent kernel over the variance")
axes[0].legend(frameon=False)
plt.show()

# %% [markdown]
# ## Rates at the edge
#
# With $1 - c = g$ a smooth map is $g - a g^2 + b g^3$, so that $g \approx 1/(a L)$, and
# $K^L/q = \frac13 \bigl(L + (1 - b/a^2) \log L\bigr) + O(1)$. A kink, as of relu, is a power series in the angle instead, and
# $K^L/q = \frac14 L + \frac38 \log L + O(1)$. A jump of the second derivative, as of elu, is in between: the limit is
# $\frac13$, and the remainder is of order $L^{-1/2}$, not $\log L/L$. Theory and a least-squares fit agree.

# %%
signals = {
    "relu": tp.signal_propagation(tp.relu, W_std=2**0.5),
    "tanh": tp.signal_propagation(tp.tanh, W_std=edge.W_std, b_std=edge.b_std),
}
if not SMALL:
    elu = tp.edge_of_chaos(tp.elu, b_std=0.2)
    signals["elu"] = tp.signal_propagation(tp.elu, W_std=elu.W_std, b_std=elu.b_std)

figure, ax = plt.subplots(figsize=(6.4, 4.4), layout="constrained")
deep = depths[depths >= 10]
for name, s in signals.items():
    rate = s.rate
    off = np.abs(s.ntk(deep, 0.0, relative=True).value / deep - float(rate.limit))
    (line,) = ax.loglog(deep, off, label=name)
    form = np.log(deep) / deep if "log" in rate.form.split("+")[1] else deep**-0.5
    ax.loglog(deep, np.abs(float(rate.remainder)) * form, ":", color=line.get_color())
    print(f"{name}: {rate}\n")
    assert abs(float(rate.remainder) - float(rate.fitted_remainder)) < 1e-3
ax.set(xlabel="depth $L$", ylabel=r"$|K^L/(qL) - $limit$|$ at $c_0 = 0$")
ax.set_title("distance from the limit, and the theory's first term (dotted)")
ax.legend(frameon=False)
ax.grid(color="0.92")
plt.show()
assert abs(float(signals["relu"].rate.remainder) - 3 / 8) < 1e-9

# %% [markdown]
# ## What can be trained
#
# Gradient descent in function space needs a kernel matrix that can be inverted and that generalizes. For three inputs of
# correlation 1/2 at first, the condition number of their tangent kernel: exponential in the ordered phase, 1 in the chaotic one
# (nothing is learned about new inputs), bounded at the edge.

# %%
figure, ax = plt.subplots(figsize=(6.4, 4.2), layout="constrained")
layers = depths[depths <= 1000]
for W in (0.9, 1.2, edge.W_std, 1.4, 2.0):
    s = tp.signal_propagation(tp.tanh, W_std=W, b_std=0.2)
    K = s.ntk(layers, [0.5, 1.0], relative=True)
    condition = (K[:, 1] + 2 * K[:, 0]) / np.maximum(K[:, 1] - K[:, 0], 1e-15 * K[:, 1])
    ax.loglog(layers, condition, label=rf"$\sigma_w$ = {W:.4g}, {s.phase}")
ax.set(xlabel="depth $L$", ylabel="condition number", ylim=(0.8, 1e8), title="three inputs of correlation 1/2")
ax.legend(frameon=False)
ax.grid(color="0.92")
plt.show()

# %% [markdown]
# ## Any block
#
# A block is a function of layers; its maps are derived from its program. Here a gated residual block, which no table has. Its
# skip connection keeps half of the state.


# %%
n = tp.Width("n")


def gated(h, W_std, b_std):
    gate = tp.sigmoid(tp.dense("G", h, n, W_std=2, b_std=1))
    return 0.5 * h + tp.dense("W", gate * tp.tanh(h), n, W_std=W_std, b_std=b_std)


for W in (1.0, 4.0):
    print(W, tp.signal_propagation(lambda h, W=W: gated(h, W_std=W, b_std=0.2)), sep="\n")

# %% [markdown]
# A residual block grows: kernels are looked at over the variance. Its ratio of entries to diagonal tends to 1/4, as that of relu
# without the skip connection.

# %%
residual = tp.signal_propagation(lambda h: h + tp.dense("W", tp.relu(h), n, W_std=2**0.5))
K = residual.ntk([100, 1000, 10**6], [0.0, 1.0], relative=True)
print(residual, (K[:, 0] / K[:, 1]).round(5))
assert abs(K[0, 0] / K[0, 1] - 0.27901) < 1e-5

# %% [markdown]
# ## Shaping the activation instead
#
# Deep Kernel Shaping and the Tailored Activation Transformation move and scale an activation so that the *network's* slope or
# curvature is a chosen number, whatever its depth: here thirty layers of tanh.


# %%
def network(h, phi):
    for k in range(30):
        h = tp.dense(f"W{k}", phi(h), n)
    return h


shaped = tp.shape_activation(tp.tanh, network, "dks", slope=1.5)
print(shaped)
before = tp.signal_propagation(tp.tanh, W_std=1.0, b_std=0.2).ntk(30, [0.0, 1.0], relative=True)
after = tp.signal_propagation(shaped, W_std=1.0).ntk(30, [0.0, 1.0], relative=True)
print("entries over the diagonal, before and after:", before[0] / before[1], after[0] / after[1])
assert after[0] / after[1] < 0.5 < before[0] / before[1]
