"""The graphical notation of Tensor Programs IIb (the issue on notation)."""

import re
import xml.etree.ElementTree as ET

import pytest

import tensorprog as tp

pytestmark = pytest.mark.slow  # what the default suite tests piece by piece


def classes(svg):
    found = {}
    for e in ET.fromstring(svg).iter():
        for c in (e.get("class") or "").split():
            found[c] = found.get(c, 0) + 1
    return found


def counterexample():
    n = tp.Width("n")
    W, x = tp.Matrix("W", n, n, var=1), tp.Vector("x", n, mean=1, var=0)
    h = W @ x
    return tp.Program(m=tp.moment(W.T @ tp.tanh(h)))


def test_shapes_of_a_small_program():
    p = counterexample()
    c = classes(tp.draw(p).svg)
    assert c["matmul"] == str(p).count("MatMul") == 2
    assert c["scalar"] == 1 and c["bar-gate"] == 1 and c["gate"] == 1 and c["g-var"] == 3 and c["x-var"] == 1
    assert "x = Vector" not in tp.draw(p).svg and "MatMul(W, x)" in tp.draw(p).svg


def test_dashes_are_for_matrices_alone():
    svg = tp.draw(counterexample()).svg
    dashed = [e for e in ET.fromstring(svg).iter() if e.get("stroke-dasharray") not in (None, "none")]
    styles = re.findall(r"\.([\w-]+)[^{}]*\{[^}]*stroke-dasharray:\s*(?!none)[^;}]+", svg)
    assert all("matmul" in (e.get("class") or "") for e in dashed) and set(styles) <= {"matmul"} and (dashed or styles)


def test_the_same_bytes_each_time_and_a_text():
    a, b = tp.draw(counterexample()), tp.draw(counterexample())
    assert a.svg == b.svg and "W" in a.text and len(a.text.splitlines()) > 2


def test_deep_networks_fold():
    n, h = tp.Width("n"), tp.Input("x")
    h = tp.dense("U", h, n)
    for layer in range(96):
        h = h + tp.dense(f"W{layer}", tp.relu(h), n)
    svg = tp.draw(tp.Network(tp.readout("v", h)).program([[1.0, 2.0]], of="nngp")).svg
    c = classes(svg)
    assert sum(c.get(k, 0) for k in ("g-var", "x-var", "scalar", "gate", "bar-gate")) <= 60
    assert re.search("9[456]", "".join(ET.fromstring(svg).itertext()))
