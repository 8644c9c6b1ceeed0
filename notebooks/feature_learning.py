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
# # Feature learning at infinite width
#
# Tensor Programs IV ([arXiv:2011.14522](https://arxiv.org/abs/2011.14522)): the scale of initial weights and of learning
# rates decides what an infinitely wide network does. In the NTK parametrization its features stay what they are, and a
# kernel does the learning. In the maximal update parametrization, muP, every layer's features move, and the limit is
# a random process that no kernel describes. Here are both, beside networks of width $2^7$ to $2^{15}$.
#
# With `TENSORPROG_SMALL=1` in the environment it runs in seconds at small sizes.

# %%
import math
import os

import matplotlib.pyplot as plt
import numpy as np

import tensorprog as tp

SMALL = os.environ.get("TENSORPROG_SMALL", "") not in ("", "0")
n = tp.Width("n")
colours = plt.get_cmap("viridis")(np.linspace(0.15, 0.85, 9))

# %% [markdown]
# ## The dichotomy
#
# `tp.classify` reads off a parametrization what training does in the limit.

# %%
for name in ("ntk", "mup", "standard"):
    print(tp.classify(name), end="\n\n")
assert tp.classify("mup").feature_learning and not tp.classify("ntk").feature_learning

# %% [markdown]
# ## One network, two limits
#
# Two hidden tanh layers on four points. The probe `features` is the mean square of the last hidden layer on every point;
# it is a Moment of the network's vectors, recorded at every step.

# %%
rng = np.random.default_rng(1)
X = rng.standard_normal((4, 3))
y = np.sign(X[:, 0] * X[:, 1])


def trained(scheme, lr=0.8, steps=6):
    h = tp.tanh(tp.dense("W1", tp.tanh(tp.dense("U", tp.Input("x"), n)), n))
    net = tp.Network(tp.readout("v", h))
    return tp.sgd(net, X, y, steps=steps, lr=lr, parametrization=scheme, probe={"features": tp.moment(h * h)})


samples = 256 if SMALL else 2048
limits = {"ntk": tp.limit(trained("ntk")), "mup": tp.limit(trained("mup"), samples=samples)}
for scheme, limit in limits.items():
    print(f"{scheme}: loss {limit['loss']}")

# %%
still, moved = (limits[scheme]["features"].value for scheme in ("ntk", "mup"))
assert np.abs(still - still[0]).max() < 1e-12 and np.abs(moved[-1] - moved[0]).max() > 0.05

# %% [markdown]
# Networks: at every width the loss of a single one, and its features. In the NTK parametrization features move, too, but
# less and less as the width grows; in muP they move at every width alike.

# %%
widths = [2**7, 2**9] if SMALL else [2**k for k in (7, 9, 11, 13, 15)]
runs = {scheme: {w: tp.run(trained(scheme), n=w, seeds=1, progress=False) for w in widths} for scheme in ("ntk", "mup")}

# %%
steps = np.arange(7)
figure, axes = plt.subplots(2, 2, figsize=(10, 6.6), sharex=True, sharey="row", layout="constrained")
for column, (scheme, title) in enumerate((("ntk", "NTK parametrization: a kernel"), ("mup", "muP: features"))):
    for w, colour in zip(widths, colours[::2], strict=False):
        found = runs[scheme][w]
        axes[0, column].plot(steps, found["loss"][0], color=colour, label=f"$n = 2^{{{round(math.log2(w))}}}$")
        axes[1, column].plot(steps, found["features"][0].mean(axis=1), color=colour)
    axes[0, column].plot(steps, limits[scheme]["loss"].value, "k--", linewidth=2, label="infinite width")
    axes[1, column].plot(steps, limits[scheme]["features"].value.mean(axis=1), "k--", linewidth=2)
    axes[0, column].set_title(title)
    axes[1, column].set_xlabel("step")
axes[0, 0].set_ylabel("training loss")
axes[1, 0].set_ylabel("mean square of the last layer")
axes[0, 1].legend(frameon=False)
for ax in axes.flat:
    ax.grid(True, color="0.9")
plt.show()

# %% [markdown]
# (In the NTK parametrization the limit drawn starts at $f_0 = 0$, and every network at an $f_0$ of its own, of order one:
# that is why the losses differ there however wide the network is. `tp.compare` starts the limit where each network starts.)

# %%
checked = [64, 128, 256] if SMALL else [128, 256, 512, 1024]
for scheme in ("ntk", "mup"):
    c = tp.compare(trained(scheme, steps=3), checked, seeds=8 if SMALL else 16, progress=False)
    assert c.agrees, c
    print(f"{scheme}: networks agree with the limit; slope of the loss's deviation {float(c.slope['loss']):.2f}")

# %% [markdown]
# ## Tuning a learning rate at infinite width
#
# All values of the rate share their randomness: the same first weights at each width, the same samples in the limit. So
# the loss is a smooth function of the rate, and the best rate is known far better than the loss. In muP the best rate
# is the same at all widths, and that of the limit: a rate that is tuned on a small network, or on none, is right for a
# large one.

# %%
sweep = tp.sweep(
    trained("mup", steps=5),
    lr=[0.2, 0.4, 0.8, 1.6, 3.2, 6.4],
    widths=[64, 128] if SMALL else [64, 256, 1024],
    seeds=4 if SMALL else 8,
    samples=samples,
    progress=False,
)
print(sweep)

# %%
figure = sweep.plot()
figure

# %%
best = tp.tune(trained("mup", steps=5), lr=(0.2, 6.4), samples=samples, refine=4 if SMALL else 8, progress=False)
there = sweep.best[math.inf]
assert abs(best.value - there.value) < best.error + there.error
print(best, "|", best.note)

# %% [markdown]
# ## What backward passes remember
#
# Gradients are multiplied by the transpose of a matrix that has seen the forward pass, and in muP that memory shows at
# the first step already. *Decoupled* training, where back-propagation uses independent copies, is another process.
# For a linear network with two hidden layers both are polynomials (Tensor Programs IV, theorem 6.4), and so exact.

# %%
linear = tp.Network(tp.readout("v", tp.dense("W1", tp.dense("U", tp.Input("x"), n), n)))
simple = tp.sgd(linear, [[1.0]], [1.0], steps=5, lr=0.25, parametrization="mup")
coupled, decoupled = (tp.limit(simple, gia=gia)["f"].value.ravel() for gia in (False, True))
assert np.abs(coupled - [0, 0.75, 0.997086, 1.000460, 0.999926, 1.000012]).max() < 1e-6
assert np.abs(decoupled - [0, 0.5, 0.822510, 0.973350, 0.998746, 0.999963]).max() < 1e-6

count, width = (4, 512) if SMALL else (16, 4096)
figure, ax = plt.subplots(figsize=(6.4, 4.2), layout="constrained")
for values, gia, colour, label in (
    (coupled, False, "#0072B2", "networks"),
    (decoupled, True, "#D55E00", "with independent copies in back-propagation"),
):
    f = tp.run(simple, n=width, seeds=count, gia=gia, progress=False)["f"][:, :, 0]
    ax.errorbar(range(6), f.mean(0), 2 * f.std(0, ddof=1) / count**0.5, fmt="o", color=colour, capsize=3, label=label)
    ax.plot(range(6), values, color=colour)
ax.axhline(1, color="0.6", linestyle=":")
ax.set(xlabel="step", ylabel="output", title=f"Lines: limits; dots: means over {count} networks, n = {width}")
ax.legend(frameon=False)
plt.show()
