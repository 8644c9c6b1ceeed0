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
# # Training in function space
#
# Jacot, Gabriel and Hongler ([arXiv:1806.07572](https://arxiv.org/abs/1806.07572)) showed that training a wide network
# by gradient descent moves its *outputs* along a kernel that, in the limit of infinite width, is deterministic and
# stays what it is: $\partial_t f_t(x) = -\frac1N \sum_i \Theta(x, x_i)\,(f_t(x_i) - y_i)$. So the outputs at any time
# are known in closed form, without training anything. This page repeats the three figures of the paper with
# `tp.predict`, each beside finite networks that are trained by the few lines of NumPy below.
#
# With `TENSORPROG_SMALL=1` in the environment it runs in seconds at small sizes; what is shown took half an hour.

# %%
import os
from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np

import tensorprog as tp

SMALL = os.environ.get("TENSORPROG_SMALL", "") not in ("", "0")
BLUE, VERMILION, GREEN = "#0072B2", "#D55E00", "#009E73"  # told apart with any colour vision

# %% [markdown]
# ## The network
#
# Four layers of weights, relu, $\beta = 0.1$, all parameters $N(0, 1)$: $\tilde\alpha^{l+1} = \frac{1}{\sqrt{n_l}} W^l
# \alpha^l + \beta b^l$, $\alpha^{l} = \mathrm{relu}(\tilde\alpha^{l})$.

# %%
n = tp.Width("n")
BETA = 0.1

h = tp.Input("x")
for layer in range(3):
    h = tp.relu(tp.dense(f"W{layer}", h, n, b_std=BETA))
net = tp.Network(tp.readout("v", h, b_std=BETA))


# %% [markdown]
# The same at finite width, to train it: forward pass, back-propagation, a step, and its own tangent kernel, the sum
# over layers of inner products of what goes forward and what comes back.


# %%
class Finite:
    def __init__(self, width, features, seed, dtype=np.float64):
        rng = np.random.default_rng(seed)
        sizes = [features, width, width, width, 1]
        self.W = [rng.standard_normal((m, k), dtype=dtype) for k, m in pairwise(sizes)]
        self.b = [rng.standard_normal(m, dtype=dtype) for m in sizes[1:]]

    def passes(self, X):
        """Activations of every layer, the outputs, and derivatives of the outputs in pre-activations."""
        forward, masks = [X.astype(self.W[0].dtype)], []
        for W, b in zip(self.W, self.b, strict=True):
            z = forward[-1] @ W.T / W.shape[1] ** 0.5 + BETA * b
            masks.append(z > 0)
            forward.append(z * masks[-1])
        backward = [np.ones_like(z)]
        for W, mask in zip(self.W[:0:-1], masks[-2::-1], strict=True):
            backward.insert(0, backward[0] @ W / W.shape[1] ** 0.5 * mask)
        return forward[:-1], z[:, 0], backward

    def __call__(self, X):
        return self.passes(X)[1]

    def kernel(self, X1, X2):
        sides = [self.passes(X) for X in (X1, X2)]
        layers = zip(sides[0][0], sides[1][0], sides[0][2], sides[1][2], strict=True)
        return sum([(d1 @ d2.T) * (a1 @ a2.T / a1.shape[1] + BETA**2) for a1, a2, d1, d2 in layers])

    def step(self, X, y, lr):
        forward, f, backward = self.passes(X)
        chi = (lr / len(X) * (f - y)).astype(f.dtype)[:, None]
        for W, b, a, d in zip(self.W, self.b, forward, backward, strict=True):
            W -= (chi * d).T @ (a / W.dtype.type(W.shape[1] ** 0.5))
            b -= W.dtype.type(BETA) * (chi * d).sum(0)


# %% [markdown]
# That this is the same network: with its weights, `tp.run` computes the same kernel.

# %%
points = np.array([[1.0, 0.0], [0.6, -0.8]])
finite = Finite(64, 2, seed=0)
weights = {f"W{k}": finite.W[k] / finite.W[k].shape[1] ** 0.5 for k in range(3)} | {"v": finite.W[3][0]}
weights |= {f"W{k}_b": BETA * finite.b[k] for k in range(3)} | {"v_b": np.full(64, BETA * finite.b[3] / 8)}
same = tp.run(net, points, n=64, parameters=weights)["ntk"][0]
assert np.abs(same - finite.kernel(points, points)).max() < 1e-12
same

# %% [markdown]
# ## Figure 1: the kernel on the circle
#
# $\Theta(x_0, x)$ for $x_0 = (1, 0)$ and $x = (\cos\gamma, \sin\gamma)$: of ten networks of width 500 and of three of
# width 10,000, before training and at the time 200 of training towards $f^*(x) = x_1 x_2$ on sixteen Gaussian points.
# (The paper takes 200 steps of rate 1, this page 50 of rate 4: the largest stable rate is 10.) First the limit, in
# closed form, against the recursion of the paper worked out by hand.

# %%
angles = np.linspace(-np.pi, np.pi, 33 if SMALL else 129)
circle = np.stack([np.cos(angles), np.sin(angles)], axis=1)
x0 = np.array([[1.0, 0.0]])
limit = tp.kernel_fn(net)(x0, circle, get="ntk")[0]

table = {0: 0.28250000, np.pi / 4: 0.16997051, np.pi / 2: 0.09270211, 3 * np.pi / 4: 0.06603643, np.pi: 0.06435377}
at = np.array(list(table))
found = tp.kernel_fn(net)(x0, np.stack([np.cos(at), np.sin(at)], axis=1))
for angle, nngp, ntk in zip(at, found.nngp[0], found.ntk[0], strict=True):
    print(f"angle {angle / np.pi:.2f} pi   covariance {nngp:.8f}   tangent kernel {ntk:.8f}")
assert np.abs(found.ntk[0] - list(table.values())).max() < 5e-9

# %%
plan = {64: 10, 512: 10} if SMALL else {500: 10, 10_000: 3}
steps, rate = 50, 4.0
rng = np.random.default_rng(0)
X = rng.standard_normal((16, 2))
y = X[:, 0] * X[:, 1]

curves = {}
for width, count in plan.items():
    for seed in range(count):
        finite = Finite(width, 2, seed, np.float32)
        curves.setdefault((width, 0), []).append(finite.kernel(x0, circle)[0])
        for _ in range(steps):
            finite.step(X, y, rate)
        curves.setdefault((width, steps * rate), []).append(finite.kernel(x0, circle)[0])
del finite

figure, axes = plt.subplots(1, 2, figsize=(10.5, 4.2), sharey=True, layout="constrained")
for ax, width, colour in zip(axes, plan, (VERMILION, GREEN), strict=True):
    for t, style in ((0, ":"), (steps * rate, "-")):
        ax.plot(angles, np.transpose(curves[width, t]), style, color=colour, linewidth=1, alpha=0.7)
        ax.plot([], [], style, color=colour, label=f"n = {width}, t = {t:g}")
    ax.plot(angles, limit, "--", color="black", linewidth=1.8, label="limit, all t")
    ax.set(xlabel=r"angle $\gamma$", xlim=(-np.pi, np.pi), title=f"{plan[width]} networks of width {width}")
    ax.set_xticks([-np.pi, 0, np.pi], [r"$-\pi$", "0", r"$\pi$"])
    ax.grid(True, color="0.9")
    ax.legend(frameon=False)
axes[0].set_ylabel(r"$\Theta(x_0, x)$")
plt.show()

# %% [markdown]
# In numbers: the spread over initialisations and the motion during training both shrink with width.

# %%
size = np.linalg.norm(limit)
for (width, t), found in curves.items():
    off = np.linalg.norm(np.array(found) - limit, axis=1) / size
    moved = np.linalg.norm(np.mean(found, axis=0) - np.mean(curves[width, 0], axis=0)) / size
    print(
        f"n = {width:5d}, t = {t:3g}: relative deviation from the limit {off.mean():.3f}; moved by training {moved:.3f}"
    )
narrow, wide = plan
for t in (0, steps * rate):
    assert np.mean([np.linalg.norm(k - limit) for k in curves[wide, t]]) < np.mean(
        [np.linalg.norm(k - limit) for k in curves[narrow, t]]
    )

# %% [markdown]
# ## Figure 2: the law of trained networks
#
# Four points on the circle, trained until the time 1000 of the paper (200 steps of rate 5), and the outputs all around.
# In the limit the outputs of trained networks are a Gaussian process whose mean and covariance `tp.predict` knows at
# every time; finite networks of two widths are drawn from it, more or less. `pred(steps=..)` is gradient descent
# itself, not the flow, so nothing is lost to the size of the steps.

# %%
corners = np.array([-2.2, -0.6, 0.9, 2.4])
X = np.stack([np.cos(corners), np.sin(corners)], axis=1)
y = X[:, 0] * X[:, 1]
steps, rate = 200, 5.0

pred = tp.predict(net, X, y, circle)
m = pred(steps=steps, lr=rate)
deviation = np.sqrt(m.variance)
print(pred)
print(f"largest stable rate {pred.max_learning_rate}")
for k in (2, 20, steps):
    found = pred(steps=k, lr=rate)
    gap = np.abs(found.gap).max()
    print(f"after {k:3d} steps descent and flow differ by {gap:.1e} at most; errors are below {found.error.max():.0e}")

# %%
count = 6 if SMALL else 50
widths = (32, 64) if SMALL else (50, 1000)
outputs = {}
for width in widths:
    for seed in range(count):
        finite = Finite(width, 2, 1000 + seed, np.float32)
        for _ in range(steps):
            finite.step(X, y, rate)
        outputs.setdefault(width, []).append(finite(circle))

figure, axes = plt.subplots(1, 2, figsize=(10.5, 4.2), sharey=True, layout="constrained")
for ax, width, colour in zip(axes, widths, (VERMILION, GREEN), strict=True):
    ax.plot(angles, np.transpose(outputs[width]), color=colour, linewidth=0.6, alpha=0.35)
    ax.plot([], [], color=colour, label=f"networks of width {width}")
    for sign in (-1, 0, 1):  # the tenth and ninetieth percentile of a Gaussian are 1.2816 deviations away
        style = "-" if sign == 0 else "--"
        label = {0: "limit: median", 1: "limit: percentiles 10, 90"}.get(sign)
        ax.plot(angles, m.mean + sign * 1.2816 * deviation, style, color="black", linewidth=1.4, label=label)
    ax.plot(corners, y, "o", color=BLUE, label="data", zorder=3)
    ax.set(
        xlabel=r"angle $\gamma$", xlim=(-np.pi, np.pi), title=f"{count} networks of width {width}, t = {steps * rate:g}"
    )
    ax.set_xticks([-np.pi, 0, np.pi], [r"$-\pi$", "0", r"$\pi$"])
    ax.grid(True, color="0.9")
axes[0].set_ylabel(r"$f(\cos\gamma, \sin\gamma)$")
handles = [line for ax in axes for line in ax.get_lines() if not line.get_label().startswith("_")]
figure.legend(
    handles=list({line.get_label(): line for line in handles}.values()),
    loc="outside lower center",
    ncols=5,
    frameon=False,
)
plt.show()

# %% [markdown]
# Between the percentiles should be four outputs in five.

# %%
for width, found in outputs.items():
    z = (np.array(found) - m.mean) / deviation
    inside = (np.abs(z) < 1.2816).mean()
    print(f"n = {width:4d}: {100 * inside:.0f}% between the percentiles; mean square of z {np.mean(z**2):.2f}")
    if width == 1000:
        # of 50 networks, whose outputs are correlated around the circle: the error of this share is about 0.05
        assert abs(inside - 0.8) < 0.15 and abs(np.mean(z**2) - 1) < 0.4

# %% [markdown]
# ## Figure 3: convergence along principal components
#
# What is left to learn decays along each eigenvector of $\Theta/N$ on the data at its own rate, $e^{-\lambda_i t}$. The
# data are the hundred digits that come with the package.

# %%
digits, _ = tp.data.digits()
X = digits / 16.0
X = X / np.sqrt((X**2).mean(axis=1, keepdims=True))  # on the sphere of radius sqrt(64)
pred = tp.predict(net, X, np.zeros(100))
components = pred.components
print(components)

# %% [markdown]
# As in the paper, a network is to learn half of the second component on top of what it computes at the start: $f^* =
# f_0 + \frac12 f^{(2)}$, $f^{(2)}$ of norm 1 in $\|f\|^2 = \frac1N \sum_i f(x_i)^2$. In the limit the deviation along
# it is $\|g_t\| = \frac12 e^{-\lambda_2 t}$, and nothing moves across: $h_t = 0$.

# %%
second = components.directions[:, 1] * 10  # norm sqrt(N)
lam, rate = components.eigenvalues[1], 0.5 * float(pred.max_learning_rate)
times = np.linspace(0, 3 / lam, 31)
marks = np.unique(np.round(times / rate).astype(int))

exact = tp.predict(net, X, second / 2)(steps=marks, lr=rate, f0="zero").train_mean
along = (exact @ second) / 100
assert np.abs(0.5 - along - 0.5 * (1 - rate * lam) ** marks).max() < 1e-10
across = np.linalg.norm(exact - np.outer(along, second), axis=1)
assert across.max() < 1e-10

# %%
widths = (32, 128) if SMALL else (100, 500, 2000)
seeds = 2 if SMALL else 4
paths = {}
for width in widths:
    for seed in range(seeds):
        finite = Finite(width, 64, 2000 + seed, np.float32)
        start = finite(X).astype(float)
        goal, left = start + second / 2, []
        for k in range(marks[-1] + 1):
            if k in marks:
                left.append(goal - finite(X))
            finite.step(X, goal, rate)
        left = np.array(left)
        g = left @ second / 100
        rest = np.linalg.norm(left - np.outer(g, second), axis=1) / 10
        paths.setdefault(width, []).append((np.abs(g), rest))

figure, axes = plt.subplots(1, 2, figsize=(10.5, 4.2), layout="constrained")
t = marks * rate
for width, colour in zip(widths, (VERMILION, GREEN, BLUE), strict=False):
    for i, (g, rest) in enumerate(paths[width]):
        label = f"n = {width}" if i == 0 else None
        axes[0].plot(t, g, color=colour, linewidth=1, label=label)
        axes[1].plot(t, rest, color=colour, linewidth=1, label=label)
axes[0].plot(
    t, 0.5 * np.exp(-lam * t), "--", color="black", linewidth=1.8, label=r"limit: $\frac{1}{2} e^{-\lambda_2 t}$"
)
axes[1].axhline(0, linestyle="--", color="black", linewidth=1.8, label="limit: 0")
axes[0].set(xlabel="time t", ylabel=r"$\|g_t\|$", title="what is left along the second component")
axes[1].set(xlabel="time t", ylabel=r"$\|h_t\|$", title="what has gone astray across it")
axes[1].set_ylim(top=1.35 * axes[1].get_ylim()[1])
for ax, columns, where in zip(axes, (1, 2), ("upper right", "upper left"), strict=True):
    ax.grid(True, color="0.9")
    ax.legend(frameon=False, ncols=columns, loc=where)
plt.show()

# %% [markdown]
# Going astray is an effect of finite width: its largest size falls like $n^{-1/2}$.

# %%
worst = {width: np.mean([rest.max() for _, rest in found]) for width, found in paths.items()}
for width, size in worst.items():
    print(f"n = {width:4d}: largest |h| {size:.4f}, times the root of n {size * width**0.5:.2f}")
slope = np.polyfit(np.log(list(worst)), np.log(list(worst.values())), 1)[0]
print(f"slope {slope:.2f}")
assert -1.1 < slope < -0.1

# %% [markdown]
# ## When to stop
#
# Noise is learned along the small eigenvalues, hence late. Given its level, `early_stopping` says when the expected
# error is smallest; the posterior of Gaussian process regression is another way to use a noise level.

# %%
rng = np.random.default_rng(1)
truth = components.directions[:, 1] * 10 + components.directions[:, 3] * 5
noisy = tp.predict(net, X, truth + 0.5 * rng.standard_normal(100))
stop = noisy.early_stopping(noise=0.5, f0="zero")
print(stop)
for t in (stop.time / 30, stop.time, 30 * stop.time, np.inf):
    print(f"t = {t:8.1f}: mean square error {np.mean((noisy(t=t, f0='zero').train_mean - truth) ** 2):.4f}")
print(noisy.posterior(noise=None, get="ntk"))
