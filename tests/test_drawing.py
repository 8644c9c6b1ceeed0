"""Pictures of programs: what is drawn against the program, no shape on another, the same bytes, folding, every way of writing."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import xml.etree.ElementTree as ET
from collections import Counter
from itertools import combinations, product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from marks import few, refused
from strategies import programs

import tensorprog as tp
from tensorprog.drawing.fold import LIMIT
from tensorprog.drawing.glyphs import LABEL, SMALL, width
from tensorprog.drawing.order import SWEEPS, Item, ordered

ROOT = Path(__file__).parent.parent
PICTURES = Path(__file__).parent / "pictures"
SHAPES = ("g-var", "x-var", "scalar", "gate", "bar-gate", "matrix")

COUNTEREXAMPLE = """
width n
matrix W : n x n, var 1
vector x : n, mean 1, var 0
h = MatMul(W, x)
x2 = Nonlin(2*h)
dx = MatMul(W.T, x2)
output mean_dx = Moment(dx)
output h2 = Moment(h**2)
"""
PERCEPTRON = """
width n
matrix W2 : n x n, var 2
vector W1[i:3] : n, mean 0, var 1
vector b : n, mean 0, var 1
vector v : n, mean 0, var 1
x1 = Nonlin(relu(W1))
g2 = MatMul(W2, x1)
h = Nonlin(g2 + b)
dh = Nonlin(step(h)*v)
g3 = MatMul(W2.T, dh)
output nngp[a] = Moment(relu(h)**2)
output ntk[a] = Moment(g3**2)*Moment(x1**2) + Moment(dh**2)
"""
UPDATED = """
width n
matrix W : n x n, var 1
vector x : n, mean 0, var 1
vector y : n, mean 0, var 1
scalar eta : default 1/2
M = W - eta[; n, n']*y*x'
h = MatMul(M, x)
m = OuterNonlin(tanh(x + y'))
output q = Moment(h*m)
"""
ENGINE = next(filter(None, map(shutil.which, ("tectonic", "pdflatex", "lualatex"))), "")
STORED = {"counterexample": COUNTEREXAMPLE, "perceptron": PERCEPTRON, "updated": UPDATED}


def deep(layers, readout=False):
    n, h = tp.Width("n"), tp.dense("U", tp.Input("x"), tp.Width("n"))
    for layer in range(layers):
        h = h + tp.dense(f"W{layer}", tp.relu(h), n)
    return tp.Network(tp.readout("v", h)).program([[1.0, 2.0]], of=("nngp", "ntk") if readout else "nngp")


def program_of(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "programs" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found = module.build()
    if not isinstance(found, tp.Network):
        return getattr(found, "program", found)
    data = module.data()
    return found.program(*data) if isinstance(data, tuple) and len(data) == 2 else found.program(data)


def elements(svg):
    """Elements by class."""
    found = {}
    for e in ET.fromstring(svg).iter():
        for c in (e.get("class") or "").split():
            found.setdefault(c, []).append(e)
    return found


def title(e):
    return next(child.text for child in e if child.tag.endswith("title"))


def lines(program):
    """The lines of the program's text, those that were wrapped in one."""
    return re.sub(r"\n    +", " ", str(program)).split("\n")


def check(program, svg):
    """Every instruction has its shapes, every operand its edge, every matrix its colour."""
    found = elements(svg)
    text = lines(program)
    first = Counter(
        [re.match(r"\w*", side)[0] for line in text if " = " in line for side in [line.partition(" = ")[2]]]
    )
    assert len(found.get("matmul", [])) == first["MatMul"]
    assert len(found.get("bar-gate", [])) == first["Moment"] + first["OuterNonlin"]
    assert len(found.get("g-var", [])) == first["MatMul"] + len([1 for line in text if line.startswith("vector ")])
    shown = {title(e).split("\n")[0].replace("  ", " ") for kind in SHAPES for e in found.get(kind, [])}
    instructions = {line for line in text if " = " in line and not line.startswith("output ")}
    assert {s for s in shown if " = " in s and not s.startswith("output ")} == instructions
    everything = {row for kind in SHAPES for e in found.get(kind, []) for row in title(e).split("\n")}
    assert {line for line in text if re.match("output|vector|scalar", line)} <= {
        row.replace("  ", " ") for row in everything
    }
    colours = {}
    for e in found.get("matmul", []):
        matrix = re.search(r"MatMul\(([^,]*?)(\.T)?,", title(e))[1]
        colours.setdefault(matrix, set()).add(e.get("stroke"))
    assert all(len(c) == 1 for c in colours.values())
    assert len(set.union(set(), *colours.values())) == len(colours)


def without_places(svg):
    """Without the lines of this file, and the name of the style that depends on them."""
    return re.sub(r"tp[0-9a-f]{10}", "tp", re.sub(r"\ntest_drawing\.py:\d+", "", svg))


def boxes(scene):
    for s in scene.shapes:
        (x, y), r = s.points[0], s.size
        if len(s.points) == 1:
            yield s.kind, (x - r, y - r, x + r, y + r)
        else:
            xs, ys = zip(*s.points, strict=True)
            yield s.kind, (min(xs), min(ys), max(xs), max(ys))


def labels(scene):
    """Where names and matrices are written."""
    for t in scene.texts:
        if not t.turned:
            w = width(t.text, SMALL if t.kind in ("auto", "remark") else LABEL)
            left = t.x - {"start": 0, "middle": w / 2, "end": w}[t.anchor]
            yield t.text, (left, t.y - 8, left + w, t.y + 1)


def overlap(a, b):
    return min(a[2], b[2]) - max(a[0], b[0]) > 0.1 and min(a[3], b[3]) - max(a[1], b[1]) > 0.1


# ---- what is drawn --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", STORED)
def test_pictures_are_those_stored(name):
    """`python tests/test_drawing.py` writes them anew."""
    drawing = tp.draw(tp.parse(STORED[name]))
    assert without_places(drawing.svg) == (PICTURES / f"{name}.svg").read_text(encoding="utf-8")
    assert drawing.text + "\n" == (PICTURES / f"{name}.txt").read_text(encoding="utf-8")


NAMES = sorted(path.stem for path in (ROOT / "programs").glob("*.py")) or ["none"]


@pytest.mark.skipif(NAMES == ["none"], reason="a source distribution without the programs")
@pytest.mark.parametrize("name", few(NAMES, [*{"mlp", "trained_weights", "none"} & {*NAMES}]))
def test_every_instruction_is_drawn_and_nothing_on_another(name):
    program = program_of(name)
    drawing = tp.draw(program, fold=False)
    check(program, drawing.svg)
    for (_, a), (_, b) in combinations(list(boxes(drawing.scene)), 2):
        assert not overlap(a, b)
    for (s, a), (t, b) in combinations(list(labels(drawing.scene)), 2):
        assert not overlap(a, b), (s, t)
    for (s, a), (t, b) in product(list(labels(drawing.scene)), list(boxes(drawing.scene))):
        assert not overlap(a, b), (s, t)


@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(programs())
def test_random_programs_are_drawn(program):
    check(program, tp.draw(program, fold=False).svg)
    folded = tp.draw(program, fold=1)
    ET.fromstring(folded.svg)
    assert folded.text and folded.html


def test_a_constant_that_is_multiplied_has_a_circle():
    p = tp.parse("width n\nmatrix W : n x n, var 1\ng1 = MatMul(W, 3[; n])\noutput q = Moment(g1**2)")
    drawing = tp.draw(p)
    check(p, drawing.svg)
    assert len(elements(drawing.svg)["x-var"]) == 1 and "● 3 ╌╌ W ╌╌ ○ g1" in drawing.text


def test_passes_face_each_other():
    scene = tp.draw(tp.parse(PERCEPTRON)).scene
    at = {s.title.split("\n")[0].split(" ")[0]: s.points[0] for s in scene.shapes if len(s.points) == 1}
    assert at["x1"][0] < at["g2"][0] < at["h"][0] and at["dh"][0] > at["g3"][0]
    assert len({at[k][1] > at["x1"][1] + 50 for k in ("dh", "g3")}) == 1


def test_build_order_does_not_matter():
    n = tp.Width("n")

    def built(backwards):
        made = {name: tp.Matrix(name, n, n) for name in (["B", "A"] if backwards else ["A", "B"])}
        x = tp.Vector("x", n)
        parts = {"p": lambda: tp.moment(tp.relu(made["A"] @ x)), "q": lambda: tp.moment(tp.tanh(made["B"] @ x) * x)}
        names = ["q", "p"] if backwards else ["p", "q"]
        values = {name: parts[name]() for name in names}
        return tp.Program(p=values["p"], q=values["q"])

    a, b = (without_places(tp.draw(built(k)).svg) for k in (False, True))
    assert a == b


def test_titles_have_the_users_line():
    n = tp.Width("n")
    x = tp.Vector("x", n)
    p = tp.Program(q=tp.moment(x**2))
    (bar,) = elements(tp.draw(p).svg)["bar-gate"]
    assert title(bar).split("\n")[0] == "c1 = Moment(x**2)" and title(bar).split("\n")[1].startswith("test_drawing.py:")


def test_what_is_written_into_svg_is_escaped():
    code = 'n = tp.Width("n")\np = tp.Program(q=tp.moment(tp.Vector("x", n) ** 2))'
    names = {"tp": tp}
    exec(compile(code, "<a&b>", "exec"), names)
    (bar,) = elements(tp.draw(names["p"]).svg)["bar-gate"]
    assert title(bar) == "c1 = Moment(x**2)\noutput q = c1" or title(bar).split("\n")[1] == "<a&b>:2"


# ---- folding --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("layers", "readout"), [(12, False), (16, True)])
def test_repeated_layers_are_drawn_once(layers, readout):
    drawing = tp.draw(deep(layers, readout))
    found = elements(drawing.svg)
    assert sum(len(found.get(kind, ())) for kind in SHAPES) <= LIMIT
    times = [int(n) for n in re.findall(r"× (\d+)<", drawing.svg)]
    assert times and all(layers - 2 <= n <= layers for n in times)
    assert "folded" in found
    assert f"× {times[0]}" in drawing.text
    assert len(elements(tp.draw(deep(layers, readout), fold=False).svg)["matmul"]) >= layers


def test_closed_boxes_open_in_html():
    drawing = tp.draw(deep(8, True), fold=10)
    boxes = [u for u in drawing.picture.units.values() if u.kind == "box"]
    assert boxes and drawing.html.count("<details>") == len(boxes)
    hidden = {line for u in boxes for v in u.inside for line in [v.title.split("\n")[0]]}
    assert hidden and all(line.replace("&", "&amp;").replace("'", "'") in drawing.html for line in list(hidden)[:20])
    assert "http" not in drawing.html.replace("http://www.w3.org/2000/svg", "")


def test_few_sweeps():
    """The order of a column changes within the sweeps there are, and crossings are undone."""
    a, b, c, d = (Item(name, k, 5, 5) for name, k in zip("abcd", (0, 0, 1, 1), strict=True))
    for left, right in ((a, d), (b, c)):
        left.after.append(right)
        right.before.append(left)
    layers = {0: [a, b], 1: [c, d]}
    ordered(layers)
    (p, q), (r, s) = layers.values()
    assert {(p, r), (q, s)} == {(a, d), (b, c)} and SWEEPS <= 8


@pytest.mark.slow
def test_a_step_of_a_deep_transformer_folds():
    n, x = tp.Width("n"), tp.Input("x", axes=("t",))
    for b in range(96):
        x = tp.transformer_block(f"B{b}", x, n)
    data = np.random.default_rng(0).uniform(-1, 1, (2, 2, 3))
    trace = tp.sgd(tp.Network(tp.readout("v", tp.mean(x, "t"))), data, [1, -1], steps=1, lr=0.5)
    drawing = tp.draw(trace)
    found = elements(drawing.svg)
    assert len(trace.program.nodes) > 10_000
    assert sum(len(found.get(kind, ())) for kind in (*SHAPES, "box")) <= LIMIT
    assert drawing.svg.count("× 95<") == 2


# ---- highlighting ---------------------------------------------------------------------------------------------------


def test_offenders_are_marked():
    p = tp.parse(COUNTEREXAMPLE)
    report = tp.check_gia(p)
    marked = elements(tp.draw(p, highlight=report).svg)["offender"]
    assert {title(e).split(" ")[0] for e in marked} == {o.label for o in report.offenders} == {"dx"}
    assert "offender" not in elements(tp.draw(p).svg)


def test_paths_of_the_tangent_kernel():
    p = tp.parse(PERCEPTRON)
    found = elements(tp.draw(p, highlight="W2").svg)
    assert {title(e).split(" ")[0] for e in found["path-member"]} >= {"x1", "g2", "h"} and len(found["path"]) >= 2
    assert {title(e).split(" ")[0] for e in elements(tp.draw(p, highlight=["dh"]).svg)["path-member"]} == {"dh"}


# ---- ways of writing ------------------------------------------------------------------------------------------------


def test_dashes_are_for_matrices_alone():
    svg = tp.draw(tp.parse(UPDATED)).svg
    styles = re.findall(r"\.([\w-]+)[^{}]*\{[^}]*stroke-dasharray:", svg)
    assert styles == ["matmul"] and not [e for e in ET.fromstring(svg).iter() if e.get("stroke-dasharray")]


def test_themes_differ_in_colours_alone():
    light, dark = (tp.draw(tp.parse(PERCEPTRON), theme=theme).svg for theme in ("light", "dark"))
    shape = re.compile(r"#[0-9a-f]{6}|tp[0-9a-f]{10}")
    assert light != dark and shape.sub("", light) == shape.sub("", dark)


@pytest.mark.parametrize("name", STORED)
def test_tikz_is_balanced_and_complete(name):
    drawing = tp.draw(tp.parse(STORED[name]))
    text = drawing.tikz
    assert text.count("{") == text.count("}") and text.isascii()
    assert text.count("dash pattern") == len(elements(drawing.svg)["matmul"])
    assert text.count(" circle ") == sum(len(elements(drawing.svg).get(k, ())) for k in ("g-var", "x-var"))


@pytest.mark.slow
@pytest.mark.skipif(not ENGINE, reason="there is no TeX engine")
@pytest.mark.parametrize("name", STORED)
def test_tex_compiles(name, tmp_path):
    p = tp.parse(STORED[name])
    tp.draw(p).save(tmp_path / "picture.tex")
    body = f"{tp.latex(p)}\n{tp.formula(p).latex()}"
    head = "\\documentclass{article}\n\\usepackage{amsmath,amssymb}\n\\begin{document}\n"
    (tmp_path / "listing.tex").write_text(f"{head}{body}\n\\end{{document}}\n", encoding="utf-8")
    for file in ("picture.tex", "listing.tex"):
        options = [] if "tectonic" in ENGINE else ["-interaction=nonstopmode", "-halt-on-error"]
        done = subprocess.run([ENGINE, *options, file], cwd=tmp_path, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stdout[-2000:]


@pytest.mark.parametrize("suffix", [".svg", ".html", ".tex", ".txt"])
def test_saved(tmp_path, suffix):
    drawing = tp.draw(tp.parse(COUNTEREXAMPLE))
    drawing.save(tmp_path / f"p{suffix}")
    assert (tmp_path / f"p{suffix}").read_text(encoding="utf-8").strip()


def test_latex_has_no_double_superscripts():
    text = tp.latex(tp.parse(UPDATED))
    assert "{x}'" in text and "}}'" not in text.replace("{x}'", "")
    names = tp.parse(
        "width n\nvector _[i:2] : n, mean 0, var 1\nvector B1_W1 : n, mean 0, var 1\noutput q = Moment(_[0]*B1_W1)"
    )
    assert r"B_{1,\mathrm{W1}}" in tp.latex(names)


def test_notebooks_and_networks():
    p = tp.parse(COUNTEREXAMPLE)
    assert p._repr_svg_() == tp.draw(p)._repr_svg_() == tp.draw(p).svg
    net = tp.Network(tp.readout("v", tp.relu(tp.dense("U", tp.Input("x"), tp.Width("n")))))
    assert tp.draw(net, [[1.0, 2.0]]).svg == tp.draw(net.program([[1.0, 2.0]])).svg


def test_wrong_input():
    p = tp.parse(COUNTEREXAMPLE)
    with refused("a picture of str"):
        tp.draw("p")
    with refused("highlight="):
        tp.draw(tp.check_gia(p))
    with refused('"light" or "dark"'):
        tp.draw(p, theme="blue")
    with refused("how many shapes"):
        tp.draw(p, fold=-1)
    with refused("did you mean"):
        tp.draw(p, highlight="dxx")
    with refused("a report of"):
        tp.draw(p, highlight=3)
    with refused("ends? in"):
        tp.draw(p).save("p.png")
    with refused("cannot save"):
        tp.draw(p).save("no/such/folder/p.svg")


if __name__ == "__main__":
    PICTURES.mkdir(exist_ok=True)
    for key, source in STORED.items():
        drawn = tp.draw(tp.parse(source))
        (PICTURES / f"{key}.svg").write_text(without_places(drawn.svg), encoding="utf-8")
        drawn.save(PICTURES / f"{key}.txt")
