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
# # Training dynamics are universal
#
# Tensor Programs IIb ([arXiv:2105.03703](https://arxiv.org/abs/2105.03703)): in the NTK parametrization a whole run of
# gradient descent is one tensor program, *whatever the architecture*, and its limit is kernel gradient descent,
#
# $$f_{t+1} = f_t - \eta\, \Theta\, (f_t - y) / N, \qquad \Theta \text{ the tangent kernel before the first step.}$$
#
# The paper has no experiments. Here are some: a perceptron, a recurrent network and a transformer block, trained at
# finite widths, beside the limit of their unrolled programs. The `assert` statements are part of the text.
#
# With `TENSORPROG_SMALL=1` in the environment it runs in seconds at small sizes.

# %%
import os

import matplotlib.pyplot as plt
import numpy as np

import tensorprog as tp

SMALL = os.environ.get("TENSORPROG_SMALL", "") not in ("", "0")
n, rng = tp.Width("n"), np.random.default_rng(0)
colours = ["#0072B2", "#D55E00", "#009E73"]  # told apart with any colour vision

# %% [markdown]
# ## Three architectures
#
# `tp.sgd` unrolls a run: the network, its gradients, and every update, as instructions. Nothing in it says "kernel".


# %%
def perceptron():
    h = tp.erf(tp.dense("U", tp.Input("x"), n))
    net = tp.Network(tp.readout("v", tp.erf(tp.dense("W", h, n))))
    return tp.sgd(net, rng.standard_normal((4, 3)), [1, -1, 1, -1], steps=10, lr=2)


def recurrent():
    states = tp.rnn("R", tp.Input("x", axes=("t",)), n, phi=tp.erf)
    net = tp.Network(tp.readout("v", tp.take(states, "t", -1)))
    return tp.sgd(net, rng.standard_normal((3, 4, 2)), [1, -1, 1], steps=6, lr=1)


def transformer():
    h = tp.transformer_block("B", tp.dense("E", tp.Input("x", axes=("t",)), n), n)
    net = tp.Network(tp.readout("v", tp.mean(h, "t")))
    return tp.sgd(net, rng.standard_normal((2, 2, 3)), [1, -1], steps=4, lr=0.5)


traces = {"perceptron": perceptron(), "recurrent network": recurrent(), "transformer block": transformer()}
for name, trace in traces.items():
    print(f"{name}: {trace}; {len(trace.program.nodes)} instructions")

# %% [markdown]
# Their limits come from these programs by the Master Theorem, with the $\dot Z$ terms by which weights remember the
# gradients that went through them. They are kernel gradient descent to the last digits:

# %%
for name, trace in traces.items():
    X, y = trace._train.arrays["x"], trace.recipe.loss.targets
    kernel = tp.kernel_fn(trace.net)(X, get="ntk")
    f, rate = np.zeros(len(y)), {"perceptron": 2, "recurrent network": 1, "transformer block": 0.5}[name]
    limit = tp.limit(trace)["f"]
    for t in range(trace.steps + 1):
        assert np.abs(limit.value[t] - f).max() < 1e-9
        f = f - rate * kernel @ (f - y) / len(y)
    print(f"{name}: {limit.method}, error {np.max(limit.error):.0e}")

# %% [markdown]
# ## Networks beside the limit
#
# Every network starts at outputs $f_0$ of its own, which are random however wide it is. The limit is taken from there:
# `tp.limit(trace, f0=...)`. Lines are limits, dots are networks: three of them at each width.

# %%
trace, sizes = traces["perceptron"], [16, 512] if SMALL else [16, 256, 4096]
figure, axes = plt.subplots(1, len(sizes), figsize=(3.9 * len(sizes), 3.6), sharey=True, layout="constrained")
steps = np.arange(trace.steps + 1)
for ax, size in zip(axes, sizes, strict=True):
    runs = tp.run(trace, n=size, seeds=3, progress=False)
    for seed, colour in enumerate(colours):
        limit = tp.limit(trace, f0=runs["f0"][seed])["f"].value
        ax.plot(steps, limit[:, :2], color=colour, linewidth=1.3)
        ax.plot(steps, runs["f"][seed][:, :2], "o", color=colour, markersize=4)
    for target in (1, -1):
        ax.axhline(target, color="0.6", linewidth=0.8, linestyle=":")
    ax.set(title=f"width {size}", xlabel="step")
axes[0].set_ylabel("outputs on two examples")
axes[0].plot([], [], "o", color="0.4", markersize=4, label="network")
axes[0].plot([], [], color="0.4", label="limit from its $f_0$")
axes[0].legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(0, 0.92))
plt.show()

# %% [markdown]
# ## How fast
#
# `tp.compare` does this for many networks, every one against the limit from its own start, and judges: a right limit is
# rejected with probability at most $10^{-3}$.

# %%
widths = [32, 64, 128] if SMALL else [32, 64, 128, 256, 512, 1024]
seeds = 8 if SMALL else 32
compared = {name: tp.compare(trace, widths, seeds, progress=False) for name, trace in traces.items()}
for name, c in compared.items():
    assert c.agrees, c
    print(f"{name}: agrees, slope of the deviation of f {float(c.slope['f']):.2f} ± {c.slope['f'].error:.2f}")

# %%
figure, ax = plt.subplots(figsize=(6.4, 4.2), layout="constrained")
for (name, c), colour, marker in zip(compared.items(), colours, "osD", strict=True):
    item = c.outputs["f"]
    ax.errorbar(widths, item.deviation, item.deviation_error, color=colour, marker=marker, capsize=3, label=name)
guide = 1.3 * max(c.outputs["f"].deviation[0] for c in compared.values())
ax.plot(widths, guide * np.sqrt(widths[0] / np.array(widths)), ":", color="0.4", label="$n^{-1/2}$")
ax.set(xscale="log", yscale="log", xlabel="width n", ylabel="relative deviation of f, all steps")
ax.set_xticks(widths, [str(w) for w in widths])
ax.minorticks_off()
ax.grid(True, color="0.9")
ax.legend(frameon=False)
plt.show()

# %% [markdown]
# ## Where the kernel comes from
#
# In back-propagation $W^\top$ is the transpose of the $W$ of the forward pass. Pretend that it is an independent copy
# (gradient independence), for the whole run: the increments that came through $W^\top$ then meet a $W$ that has never
# heard of them, $\dot Z$ is missing, and only the last layers' motion reaches the output. At the first step that
# assumption was harmless for the *kernel*; for the *dynamics* it is not.

# %%
width, count = (256, 4) if SMALL else (4096, 8)
with_memory, without = [tp.limit(trace, gia=gia)["loss"].value for gia in (False, True)]
networks = tp.run(trace.program, n=width, seeds=count, progress=False)["loss"]  # centred: f_0 = 0, as in the limit
gap, spread = np.abs(without - with_memory).max(), networks.std(axis=0, ddof=1) / count**0.5
assert np.abs(networks.mean(axis=0) - with_memory).max() < gap / 4

figure, ax = plt.subplots(figsize=(6.4, 4.2), layout="constrained")
ax.errorbar(steps, networks.mean(axis=0), 2 * spread, fmt="o", color="black", capsize=3, label=f"networks, n = {width}")
ax.plot(steps, with_memory, color=colours[0], label="limit")
ax.plot(steps, without, "--", color=colours[1], label="limit under gradient independence")
ax.set(xlabel="step", ylabel="training loss", title="What W remembers of its gradients")
ax.grid(True, color="0.9")
ax.legend(frameon=False)
plt.show()
