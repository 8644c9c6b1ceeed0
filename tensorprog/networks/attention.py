"""Attention: softmax of Moments of queries and keys."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tensorprog.errors import TensorProgramError
from tensorprog.language import build
from tensorprog.language.deferred import layer
from tensorprog.language.describe import describe
from tensorprog.language.expression import Expression
from tensorprog.language.given import real_array
from tensorprog.language.symbols import Number, Width, check_name, number
from tensorprog.networks.inputs import EXAMPLE
from tensorprog.networks.layers import dense, deviation, ordered, vector
from tensorprog.networks.normalization import layer_norm

__all__ = ["attention", "self_attention", "transformer_block"]

HIDDEN = 1e30
"""What is subtracted from a masked logit: exp of it is 0 to the last bit, its square is still a number."""


@layer
def attention(
    q: Any,
    k: Any,
    v: Any,
    axis: str = "t",
    mask: Any = None,
    scale: Number = 1,
    keys: str | None = None,
) -> Expression:
    """Attention: sum_j a_ij v_j with a_i = softmax_j(scale q_i.k_j/n).

    The logits are Moments, with 1/n, so that they have a limit where q and k share weights (1/sqrt(n) has none then). Tied
    q = k = v are allowed, and v of another width.

    Args:
        q: Queries, a vector; one without the axis is one query.
        k: Keys, a vector of the same width.
        v: Values, a vector with the axis of the keys.
        axis: The axis of positions; of the keys too, unless `keys` names theirs.
        mask: What a query sees: None for all keys; "causal" for those up to its own position; or an array of ones and zeros
            (or booleans), of shape (queries, keys), or (keys,) for one query. A mask for each example is an Input of ones and
            zeros without features: `tp.Input("mask", axes=("t",), features=False)` for the keys that are there (padding), axes
            ("t", "t_key") for every query its own. A query that sees no key looks at all alike.
        scale: A number that multiplies the logits, an inverse temperature.
        keys: The axis of keys and values.

    Returns:
        A vector of the width of v, with the axes of q and those of v but that of the keys. Other axes are matched by name.

    Raises:
        TensorProgramError: axes or sizes that do not fit; a mask that hides all keys from a query.

    Example:
        >>> import tensorprog as tp
        >>> x = tp.Vector("x", tp.Width("n"), axes={"t": 2}, cov=[[1, 0], [0, 1]])
        >>> y = tp.attention(x, x, x, mask="causal")
        >>> tp.limit(tp.Program(m=tp.moment(y * x)))["m"].value.round(6)  # 1, and 1/(1 + exp(-1))
        array([1.      , 0.731059])

    Source: Vaswani et al. 2017, section 3.2; with 1/n: Tensor Programs II (arXiv:2006.14548), appendix D.
    """
    q, k, v = (vector(x, "attention") for x in (q, k, v))
    over = axis if keys is None else check_name(keys, "an axis")
    for what, x in (("keys", k), ("values", v)):
        if over not in x.axes:
            raise TensorProgramError(
                f"attention over the axis {over!r}, and the {what} {describe(x.node)} have {x.axes or 'none'}",
                fix='name the axis of the positions: tp.attention(q, k, v, axis="t"), keys="s" for that of the keys',
            )
    sizes = [x.shape[x.axes.index(over)] for x in (k, v)]
    if sizes[0] != sizes[1]:
        raise TensorProgramError(
            f"attention with {sizes[0]} keys and {sizes[1]} values", fix="give a value for each key"
        )
    if isinstance(mask, Expression) and axis in mask.axes and len([a for a in mask.axes if a != EXAMPLE]) == 1:
        mask = build.rename(mask, **{axis: over})  # which keys there are
    if over in q.axes:  # the keys get an axis of their own
        fresh = f"{over}_key"
        while fresh in (*q.axes, *k.axes, *v.axes):
            fresh += "_"
        k, v = [build.rename(y, **{over: fresh}) for y in (k, v)]
        if isinstance(mask, Expression) and fresh not in mask.axes and over in mask.axes:
            mask = build.rename(mask, **{over: fresh})
        over = fresh
    logits = build.moment(q * k) * number(scale, "the scale of attention")
    if isinstance(mask, Expression):
        if mask.width is not None or over not in mask.axes or set(mask.axes) - {EXAMPLE, axis, over, *q.axes, *k.axes}:
            raise TensorProgramError(
                f"the mask of attention is {mask!r}",
                why=f"it says which keys each query sees; the axis of the keys is {over!r}",
                fix=f'give ones and zeros: tp.Input("mask", axes=("{axis}",), features=False)',
            )
        logits = logits * mask + (mask - 1) * HIDDEN
    elif mask is not None:
        visible, names = _visible(mask, q, axis, sizes[0], over)
        # No infinities: logits that are not seen are replaced, not moved, so that no digits of the others are lost.
        logits = logits * build.array(visible, names) + build.array((visible - 1) * HIDDEN, names)
    return ordered(build.sum(build.softmax(logits, over) * v, over), (*q.axes, *v.axes))


def _visible(mask: Any, q: Expression, axis: str, keys: int, over: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """A mask as an array of ones and zeros, and its axes."""
    if axis in q.axes:
        names, shape = (axis, over), (q.shape[q.axes.index(axis)], keys)
    else:
        names, shape = (over,), (keys,)  # type: ignore[assignment]
    if isinstance(mask, str):
        if mask != "causal" or len(shape) < 2 or shape[0] != shape[1]:
            raise TensorProgramError(
                f"the mask {mask!r} for attention of shape {shape}",
                why='"causal" is the one mask with a name, for as many queries as keys',
                fix="give an array of ones and zeros of shape (queries, keys)",
            )
        return np.tri(shape[0], dtype=np.int64), names
    given = real_array(mask, "the mask", "give ones and zeros of shape (queries, keys)")
    if given.shape != shape or not np.isin(given, (0, 1)).all():
        raise TensorProgramError(
            f"a mask of shape {given.shape} for attention of shape {shape}",
            why="it says which keys each query sees",
            fix="give ones and zeros (or booleans), of shape (queries, keys)",
        )
    visible = given.astype(np.int64)
    blind = np.flatnonzero(~visible.any(-1))
    if blind.size:
        raise TensorProgramError(f"the mask hides all keys from query {blind[0]}", fix="let it see one")
    return visible, names


@layer
def self_attention(
    name: str,
    x: Any,
    n: Width,
    heads: int = 1,
    W_key_std: Any = 1,
    W_query_std: Any = 1,
    W_value_std: Any = 1,
    W_out_std: Any = 1,
    b_std: Any = None,
    tied: bool = False,
    axis: str = "t",
    mask: Any = None,
    scale: Number = 1,
    head_width: Width | None = None,
) -> Expression:
    """Multi-head self-attention: O concat_h(sum_j a^h_ij V_h x_j) + b, a^h_i = softmax_j(scale (Q_h x_i).(K_h x_j)/n).

    The heads are as wide as the result, unless `head_width` says otherwise; O has the fan-in of all of them. In the limit
    heads are independent of each other, and their number does not matter. Independent Q and K have logits of order
    n**-1/2: in the limit all positions get the same weight. `tied` makes the logits covariances.

    Args:
        name: Of the weights: `name_query_0`, `name_key_0`, `name_value_0`, `name_out_0`, .. for head 0; the bias is
            `name_out_b`. One head has `name_query` and so on.
        x: A vector or an Input, with the axis.
        n: The width of the result.
        heads: Their number.
        W_key_std: Standard deviation of the weights of K, times the root of the fan-in.
        W_query_std: Of Q.
        W_value_std: Of V.
        W_out_std: Of O.
        b_std: Of the bias of the output; None for none.
        tied: Are keys and queries multiples of one product, `name_key`, of variance W_key_std W_query_std?
        axis: The axis of positions.
        mask: As for `attention`.
        scale: As for `attention`.
        head_width: The width of keys, queries and values: Width("head", ratio=Fraction(1, 8)), say.

    Returns:
        A vector of width n with the axes of x.

    Example:
        >>> import tensorprog as tp
        >>> n = tp.Width("n")
        >>> x = tp.Vector("x", n, axes={"t": 2})
        >>> y = tp.self_attention("A", x, n, heads=8, tied=True)
        >>> tp.limit(tp.Program(m=tp.moment(y * y)))["m"].value.round(6)
        array([0.606776, 0.606776])

    Source: Vaswani et al. 2017, section 3.2.2; tied with 1/n: Hron et al. 2020 (arXiv:2006.10540), neural-tangents'
    GlobalSelfAttention with linear_scaling.
    """
    if not isinstance(heads, int) or heads < 1:
        raise TensorProgramError(f"self-attention {name} has {heads!r} heads", fix="give a positive integer")
    m = n if head_width is None else head_width
    outputs = []
    for h in range(heads):
        end = f"_{h}" if heads > 1 else ""
        if tied:
            k = q = dense(f"{name}_key{end}", x, m, W_std=_between(W_key_std, W_query_std, name))
        else:
            k = dense(f"{name}_key{end}", x, m, W_std=W_key_std)
            q = dense(f"{name}_query{end}", x, m, W_std=W_query_std)
        v = dense(f"{name}_value{end}", x, m, W_std=W_value_std)
        outputs.append(attention(q, k, v, axis=axis, mask=mask, scale=scale))
    return dense(f"{name}_out", outputs if heads > 1 else outputs[0], n, W_std=W_out_std, b_std=b_std)


def _between(key: Any, query: Any, name: str) -> Any:
    """The geometric mean of two standard deviations, for one matrix in place of two."""
    (a, s), (b, t) = deviation(key, f"W_key_std of {name}"), deviation(query, f"W_query_std of {name}")
    if not isinstance(s, Expression) and not isinstance(t, Expression):
        return float(a * b) ** 0.25
    return build.sqrt(s * t) * float(a * b) ** 0.25


@layer
def transformer_block(
    name: str,
    x: Any,
    n: Width,
    phi: Callable[[Any], Any] = build.relu,
    U_std: Any = 1,
    W_std: Any = 1,
    b_std: Any = None,
    axis: str = "t",
    mask: Any = None,
    scale: Number = 1,
    eps: Number = 0,
) -> Expression:
    """A block of a transformer, layer norms last: k = U x, z = LN(k + Attn(k, k, k)), LN(z + W2 phi(W1 z + b1) + b2).

    Args:
        name: Of the weights `name_U`, `name_W1`, `name_W2` and the biases `name_W1_b`, `name_W2_b`.
        x: A vector or an Input, with the axis.
        n: The width of the result, and of all vectors in it.
        phi: The activation.
        U_std: Standard deviation of the weights of U, times the root of the fan-in.
        W_std: Of W1 and W2.
        b_std: Of the biases; None for none.
        axis: The axis of positions.
        mask: As for `attention`.
        scale: As for `attention`.
        eps: As for `layer_norm`.

    Returns:
        A vector of width n with the axes of x.

    Example:
        >>> import tensorprog as tp
        >>> n = tp.Width("n")
        >>> x = tp.transformer_block("A", tp.Input("x", axes=("t",)), n)
        >>> net = tp.Network(tp.readout("v", tp.mean(tp.transformer_block("B", x, n, mask="causal"), "t")))
        >>> tp.limit(net.program([[[1.0, 0.0], [0.0, 1.0]]], of="nngp"))["nngp"].value.round(6)
        array([[0.827645]])

    Source: Tensor Programs II (arXiv:2006.14548), appendix E.5; Yang 2019 (arXiv:1910.12478), the GP of a transformer.
    """
    k = dense(f"{name}_U", x, n, W_std=U_std)
    z = layer_norm(k + attention(k, k, k, axis=axis, mask=mask, scale=scale), eps)
    g = phi(dense(f"{name}_W1", z, n, W_std=W_std, b_std=b_std))
    return layer_norm(z + dense(f"{name}_W2", g, n, W_std=W_std, b_std=b_std), eps)
