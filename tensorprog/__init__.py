"""Tensor Programs: build one, run it at any finite width, take its exact infinite-width limit, compare.

See the README for a first program and docs/architecture.md for how the package is made.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tensorprog.errors import TensorProgramError
from tensorprog.estimate import Estimate, Estimates
from tensorprog.language.axes import concat, flatten, split
from tensorprog.language.build import *  # noqa: F403
from tensorprog.language.build import __all__ as _build
from tensorprog.language.deferred import layer
from tensorprog.language.expression import Expression
from tensorprog.language.leaves import Scalar, Vector, inverse_sqrt
from tensorprog.language.matrix import Matrix
from tensorprog.language.program import Program
from tensorprog.language.symbols import Width

if TYPE_CHECKING:
    from tensorprog.analysis.compare import Comparison, compare
    from tensorprog.analysis.gia import check_gia
    from tensorprog.analysis.gia_report import GIAReport
    from tensorprog.analysis.regularity import RegularityReport, check_regularity
    from tensorprog.analysis.swept import Sweep
    from tensorprog.coordinates.check import coord_check
    from tensorprog.coordinates.classify import NetworkClassification, classify
    from tensorprog.coordinates.report import CoordCheck
    from tensorprog.coordinates.setup import Exponents
    from tensorprog.depth.edge import edge_of_chaos
    from tensorprog.depth.phase import phase_diagram
    from tensorprog.depth.scaled import scaled_residual
    from tensorprog.depth.shaping import shape_activation
    from tensorprog.depth.signal import signal_propagation
    from tensorprog.drawing.draw import draw
    from tensorprog.drawing.picture import Drawing
    from tensorprog.execute.executor import Runs, run
    from tensorprog.function_space.predict import predict
    from tensorprog.kernels.function import kernel_fn
    from tensorprog.language.custom import Function
    from tensorprog.limits.formula.formula import formula
    from tensorprog.limits.formula.result import Formula
    from tensorprog.limits.limit import limit
    from tensorprog.networks.attention import attention as attention
    from tensorprog.networks.attention import self_attention as self_attention
    from tensorprog.networks.attention import transformer_block as transformer_block
    from tensorprog.networks.convolution import conv as conv
    from tensorprog.networks.graph import graph_conv as graph_conv
    from tensorprog.networks.inputs import Input as Input
    from tensorprog.networks.layers import dense as dense
    from tensorprog.networks.layers import residual as residual
    from tensorprog.networks.network import Network as Network
    from tensorprog.networks.normalization import batch_norm as batch_norm
    from tensorprog.networks.normalization import layer_norm as layer_norm
    from tensorprog.networks.normalization import scale as scale
    from tensorprog.networks.pooling import avg_pool as avg_pool
    from tensorprog.networks.pooling import global_avg_pool as global_avg_pool
    from tensorprog.networks.pooling import max_over as max_over
    from tensorprog.networks.readouts import readout as readout
    from tensorprog.networks.recurrent import bidirectional as bidirectional
    from tensorprog.networks.recurrent import gru as gru
    from tensorprog.networks.recurrent import lstm as lstm
    from tensorprog.networks.recurrent import rnn as rnn
    from tensorprog.text.files import load
    from tensorprog.text.parse import parse
    from tensorprog.text.written import latex, save
    from tensorprog.training.muon import Muon
    from tensorprog.training.optimizers import SGD, Adam, SignSGD
    from tensorprog.training.powers import ABC
    from tensorprog.training.sgd import sgd
    from tensorprog.training.sweep import sweep, tune
    from tensorprog.training.trace import Trace

__version__ = "0.1.0"

# Layers, by the module of `networks/` they are in.
_NETWORKS = {
    "attention": ("attention", "self_attention", "transformer_block"),
    "convolution": ("conv",),
    "graph": ("graph_conv",),
    "inputs": ("Input",),
    "layers": ("dense", "residual"),
    "network": ("Network",),
    "normalization": ("batch_norm", "layer_norm", "scale"),
    "readouts": ("readout",),
    "pooling": ("avg_pool", "global_avg_pool", "max_over"),
    "recurrent": ("bidirectional", "gru", "lstm", "rnn"),
}
_networks = [name for names in _NETWORKS.values() for name in names]

__all__ = [
    "ABC", "Adam", "Comparison", "CoordCheck", "Drawing", "Estimate", "Estimates", "Exponents", "Expression", "Formula",
    "Function", "GIAReport", "Matrix", "Muon", "NetworkClassification",
    "Program", "RegularityReport", "Runs", "SGD", "Scalar", "SignSGD", "Sweep",
    "TensorProgramError", "Trace", "Vector", "Width", "check_gia", "check_regularity", "classify", "compare",
    "concat", "coord_check", "draw", "edge_of_chaos", "flatten", "formula",
    "inverse_sqrt", "kernel_fn", "latex", "layer", "limit", "load", "parse", "phase_diagram", "predict", "run",
    "save", "sgd", "scaled_residual", "shape_activation", "signal_propagation", "split", "sweep", "tune",
    *_build, *_networks,
]  # fmt: skip

# Imported when first used: writing and printing programs should not wait for SciPy.
_LATER = {
    "ABC": "tensorprog.training.powers",
    "Adam": "tensorprog.training.optimizers",
    "Comparison": "tensorprog.analysis.compare",
    "CoordCheck": "tensorprog.coordinates.report",
    "Drawing": "tensorprog.drawing.picture",
    "Exponents": "tensorprog.coordinates.setup",
    "Formula": "tensorprog.limits.formula.result",
    "Function": "tensorprog.language.custom",
    "GIAReport": "tensorprog.analysis.gia_report",
    "NetworkClassification": "tensorprog.coordinates.classify",
    "RegularityReport": "tensorprog.analysis.regularity",
    "Runs": "tensorprog.execute.executor",
    "SGD": "tensorprog.training.optimizers",
    "Muon": "tensorprog.training.muon",
    "SignSGD": "tensorprog.training.optimizers",
    "Sweep": "tensorprog.analysis.swept",
    "Trace": "tensorprog.training.trace",
    "check_gia": "tensorprog.analysis.gia",
    "check_regularity": "tensorprog.analysis.regularity",
    "classify": "tensorprog.coordinates.classify",
    "compare": "tensorprog.analysis.compare",
    "coord_check": "tensorprog.coordinates.check",
    "draw": "tensorprog.drawing.draw",
    "edge_of_chaos": "tensorprog.depth.edge",
    "formula": "tensorprog.limits.formula.formula",
    "kernel_fn": "tensorprog.kernels.function",
    "latex": "tensorprog.text.written",
    "limit": "tensorprog.limits.limit",
    "load": "tensorprog.text.files",
    "parse": "tensorprog.text.parse",
    "phase_diagram": "tensorprog.depth.phase",
    "predict": "tensorprog.function_space.predict",
    "run": "tensorprog.execute.executor",
    "save": "tensorprog.text.written",
    "sgd": "tensorprog.training.sgd",
    "sweep": "tensorprog.training.sweep",
    "tune": "tensorprog.training.sweep",
    "scaled_residual": "tensorprog.depth.scaled",
    "shape_activation": "tensorprog.depth.shaping",
    "signal_propagation": "tensorprog.depth.signal",
} | {name: f"tensorprog.networks.{module}" for module, names in _NETWORKS.items() for name in names}


def __getattr__(name: str) -> Any:
    if name == "data":
        from importlib import import_module

        return import_module("tensorprog.data")
    if name not in _LATER:
        from difflib import get_close_matches

        near = " or ".join([f"tp.{other}" for other in get_close_matches(name, __all__)])
        hint = f"did you mean {near}?" if near else "dir(tensorprog) lists what there is; tp.Function makes functions"
        raise AttributeError(f"module 'tensorprog' has no attribute {name!r}: {hint}")
    from importlib import import_module

    globals()[name] = value = getattr(import_module(_LATER[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
