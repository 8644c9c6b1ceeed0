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
# # A gradient that remembers its weights
#
# Back-propagation multiplies with the transposes of the matrices that the forward pass multiplied with. Calculations
# about wide networks often pretend that those transposes are *independent copies*: the **gradient independence
# assumption** (GIA). Mostly that gives the right limit. Here is the smallest program where it does not, from its
# definition to a verdict. The `assert` statements are part of the text: if this page were wrong, it would not run.

# %%
import math

import tensorprog as tp

# %% [markdown]
# ## The program
#
# One linear layer on a constant vector, $h = W x$, with output $f = \frac1n \sum_\alpha h_\alpha^2$. In the scaling of
# Tensor Programs II its gradients are $dh = 2h$ and $dx = W^\top dh$. We ask for three averages over the width.

# %%
n = tp.Width("n")
W = tp.Matrix("W", n, n, var=1)  # entries N(0, 1/n); W.T is its transpose
x = tp.Vector("x", n, mean=1, var=0)

h = W @ x
dx = W.T @ (2 * h)
p = tp.Program(mean_dx=tp.moment(dx), dx2=tp.moment(dx * dx), h2=tp.moment(h * h))
print(p)

# %% [markdown]
# The text is the program, in the papers' notation: it parses back to an equal one.

# %%
assert tp.parse(str(p)) == p

# %% [markdown]
# ## Finite width
#
# Eight seeds of a network of width 1000, and two of a network of width a million. The second never stores its
# $10^{12}$ weights: a Gaussian matrix is sampled only where the program looks at it, exactly in law.

# %%
runs = tp.run(p, n=1000, seeds=8)
runs

# %%
huge = tp.run(p, n=10**6, seeds=2)
assert huge.weights == "lazy" and abs(huge["mean_dx"].mean() - 2) < 0.02
huge

# %% [markdown]
# ## Infinite width
#
# The Master Theorem gives the limit: $Z^{dx} = \hat Z + \dot Z$ with $\dot Z = 2 Z^x$, the memory of $W$ in $W^\top$.
# The answers are exact: rational arithmetic, no sampling.

# %%
limit = tp.limit(p)
assert (limit["mean_dx"].value, limit["dx2"].value, limit["h2"].value) == (2, 8, 1)
assert limit["mean_dx"].kind == "exact"
limit

# %% [markdown]
# Under gradient independence the memory is gone: the mean is 0 and the second moment is half of what it should be.

# %%
wrong = tp.limit(p, gia=True)
assert (wrong["mean_dx"].value, wrong["dx2"].value, wrong["h2"].value) == (0, 4, 1)
wrong

# %% [markdown]
# ## The verdict
#
# `tp.compare` runs the program at several widths and judges: does the mean over seeds tend to the limit, and at which
# rate does a single run? A right limit is rejected with probability at most $10^{-3}$.

# %%
widths = [64, 256, 1024, 4096]
comparison = tp.compare(p, widths=widths, seeds=32, progress=False)
assert comparison.agrees
assert all(abs(float(slope) + 0.5) < 5 * slope.error for slope in comparison.slope.values())
print(comparison)

# %%
against_gia = tp.compare(p, widths=widths, seeds=32, against=wrong, progress=False)
assert not against_gia.agrees
assert against_gia.outputs["h2"].agrees  # the forward pass is not GIA's business
print(against_gia)

# %%
comparison.plot()

# %% [markdown]
# ## Bonus: exact Catalan numbers
#
# The same calculus does random matrix theory. For a random vector $v$ independent of $W$, $v^\top (W W^\top)^k v / n$
# tends to the $k$-th moment of the Marchenko-Pastur law: for a square matrix the Catalan number
# $\frac{1}{k+1}\binom{2k}{k}$. It is $\dot Z$ that produces every one of them.

# %%
v = tp.Vector("v", n, mean=0, var=1)
y, moments = v, {}
for k in range(1, 9):
    y = W @ (W.T @ y)
    moments[f"m{k}"] = tp.moment(v * y)
catalan = tp.limit(tp.Program(moments))
assert [m.value for m in catalan.values()] == [math.comb(2 * k, k) // (k + 1) for k in range(1, 9)]
catalan
