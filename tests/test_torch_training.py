"""Training at finite width against PyTorch: its automatic differentiation and its optimisers, on the same weights.

A parameter is omega ~ N(0, 1) in PyTorch, and a layer multiplies by omega / sqrt(fan-in), the readout by omega / n in "mup".
Left out where PyTorch is not installed: pip install torch.
"""

from __future__ import annotations

import numpy as np
import pytest

import tensorprog as tp

torch = pytest.importorskip("torch")
N, STEPS = 12, 5
n = tp.Width("n")
RNG = np.random.default_rng(0)
X, XT, Y = RNG.standard_normal((5, 4)), RNG.standard_normal((2, 4)), RNG.standard_normal(5)
SEQUENCES = RNG.standard_normal((5, 3, 4))
CLASSES = np.array([0, 2, 1, 1, 0])
BATCHES = {"full": [range(5)] * STEPS, 2: [[0, 1], [2, 3], [4], [0, 1], [2, 3]]}


def omega(name, *shape):
    return np.random.default_rng([7, *name.encode()]).standard_normal(shape)


def torch_run(f, parameters, data, test, loss, optimizer, batches, schedule=None):
    """Outputs before every step and after the last."""
    ps = {k: torch.tensor(a, requires_grad=True) for k, a in parameters.items()}
    data, test = torch.tensor(data), torch.tensor(test)
    steps, found = optimizer(list(ps.values())), []
    slowing = None if schedule is None else torch.optim.lr_scheduler.LambdaLR(steps, schedule)
    for b in batches:
        found.append(torch.cat([f(ps, data), f(ps, test)]).detach().numpy())
        steps.zero_grad()
        loss(f(ps, data[list(b)]), list(b)).backward()
        steps.step()
        if slowing is not None:
            slowing.step()
    found.append(torch.cat([f(ps, data), f(ps, test)]).detach().numpy())
    return np.array(found)


def check(trace, given, wanted):
    runs = tp.run(trace, n=N, parameters=given)
    got = np.concatenate([runs["f"][0], runs["f_test"][0]], axis=1)
    assert np.abs(got - wanted).max() < 1e-10 * np.abs(wanted).max()


def mlp(power, outputs=()):
    def f(o, x):
        h = torch.tanh(torch.tanh(x @ o["U"].T / 2) @ o["W"].T / N**0.5)
        return (h @ o["v"].mT if outputs else h @ o["v"]) / N**power

    net = tp.tanh(tp.dense("W", tp.tanh(tp.dense("U", tp.Input("x"), n)), n))
    parameters = {"U": omega("U", N, 4), "W": omega("W", N, N), "v": omega("v", *outputs, N)}
    return net, f, parameters, {"U": parameters["U"] / 2, "W": parameters["W"] / N**0.5, "v": parameters["v"]}


def mse(out, b):
    return ((out - torch.tensor(Y[b])) ** 2).mean() / 2


@pytest.mark.parametrize("scheme", ["ntk", "mup"])
@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize(("momentum", "nesterov"), [(0, False), (0.75, False), (0.75, True)])
def test_gradient_descent_with_a_schedule(scheme, batch, momentum, nesterov):
    net, f, parameters, given = mlp(0.5 if scheme == "ntk" else 1)
    trace = tp.sgd(
        tp.Network(tp.readout("v", net)), X, Y, steps=STEPS, lr=lambda step: 0.5 / (1 + step), batch=batch,
        parametrization=scheme, X_test=XT, optimizer=tp.SGD(momentum, nesterov),
    )  # fmt: skip
    scale = 1 if scheme == "ntk" else N
    wanted = torch_run(
        f, parameters, X, XT, mse, lambda ps: torch.optim.SGD(ps, 0.5 * scale, momentum, nesterov=nesterov),
        BATCHES[batch], lambda step: 1 / (1 + step),
    )  # fmt: skip
    check(trace, given, wanted)


def test_adam_and_decoupled_decay():
    net, f, parameters, given = mlp(1)
    trace = tp.sgd(
        tp.Network(tp.readout("v", net)), X, Y, steps=STEPS, lr=0.1, batch=2, parametrization="mup", X_test=XT,
        optimizer=tp.Adam(0.75, 0.5, 1e-13), weight_decay=0.5,
    )  # fmt: skip

    def adamw(ps):  # an entry of U / 2 moves by lr / 2, one of W / n^(1/2) by lr / n
        groups = [{"params": [p], "lr": 0.1 * s} for p, s in zip(ps, (1, N**-0.5, 1), strict=True)]
        for group, s in zip(groups, (1, N**0.5, 1), strict=True):
            group["weight_decay"] = 0.5 * s
        return torch.optim.AdamW(groups, betas=(0.75, 0.5), eps=0)

    check(trace, given, torch_run(f, parameters, X, XT, mse, adamw, BATCHES[2]))


@pytest.mark.parametrize("scheme", ["ntk", "mup"])
def test_cross_entropy_of_several_outputs(scheme):
    net, f, parameters, given = mlp(0.5 if scheme == "ntk" else 1, (3,))
    given |= dict(zip("abc", given.pop("v"), strict=True))
    trace = tp.sgd(
        tp.Network([tp.readout(name, net) for name in "abc"]), X, CLASSES, steps=STEPS, lr=0.5, batch=2, parametrization=scheme,
        loss="cross_entropy", X_test=XT,
    )  # fmt: skip
    scale = 1 if scheme == "ntk" else N
    wanted = torch_run(
        f, parameters, X, XT, lambda out, b: torch.nn.functional.cross_entropy(out, torch.tensor(CLASSES[b])),
        lambda ps: torch.optim.SGD(ps, 0.5 * scale), BATCHES[2],
    )  # fmt: skip
    check(trace, given, wanted)


@pytest.mark.parametrize("scheme", ["ntk", "mup"])
def test_a_recurrent_network(scheme):
    power = 0.5 if scheme == "ntk" else 1

    def f(o, x):
        s = torch.tanh(x[:, 0] @ o["U"].T / 2 + 0.25 * o["b"])
        for t in range(1, 3):
            s = torch.tanh(x[:, t] @ o["U"].T / 2 + s @ o["W"].T / N**0.5 + 0.25 * o["b"])
        return s @ o["v"] / N**power

    x = tp.Input("x", axes=("t",))
    s = tp.rnn("R", x, n, phi=tp.tanh, b_std=0.25)
    net = tp.Network(tp.readout("v", tp.take(s, "t", -1)))
    parameters = {"U": omega("U", N, 4), "W": omega("W", N, N), "b": omega("b", N), "v": omega("v", N)}
    given = {
        "R_U": parameters["U"] / 2,
        "R_W": parameters["W"] / N**0.5,
        "R_b": parameters["b"] / 4,
        "v": parameters["v"],
    }
    trace = tp.sgd(net, SEQUENCES[:3], Y[:3], steps=STEPS, lr=0.5, parametrization=scheme, X_test=SEQUENCES[3:])
    scale = 1 if scheme == "ntk" else N
    wanted = torch_run(
        f, parameters, SEQUENCES[:3], SEQUENCES[3:], mse, lambda ps: torch.optim.SGD(ps, 0.5 * scale),
        [range(3)] * STEPS,
    )  # fmt: skip
    check(trace, given, wanted)
