"""Infinite width by joint samples: the same operator as the lazy one, with M samples in place of n coordinates.

Every width is a population of M joint samples of the limit variables Z; the inner product is the sample mean. From the
Master Theorem, with the Zdot of Stein's lemma in a whitened basis (docs/architecture.md, 'Executor and spaces'):

    Z^{W x}   = s [           XF <F, x>  +  rho^-1/2 E <XE, x> ]        Zhat + Zdot
    Z^{W.T y} = s [ rho^1/2   XE <E, y>  +  rho      F <XF, y> ]

`ImplicitMatrix` keeps Euclid-orthonormal rows, F / sqrt(M) and so on, which takes all factors of M away. The image of a
direction f is kept with its Zdot part: later E cannot change it, as their noise XE is made orthogonal to f. The
component of W f along e is then 1 / rho times that of W.T e along f, and `rho <y, W x> = <W.T y, x>` holds exactly.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from functools import lru_cache

import numpy as np
from scipy.special import ndtri
from scipy.stats import qmc

from tensorprog.errors import TensorProgramError
from tensorprog.execute.basis import PANEL, TOLERANCE, Basis, ImplicitMatrix, Rows
from tensorprog.execute.components import Components
from tensorprog.execute.random import FIRST_DIMENSIONS, REMEMBERED, Array, first_dimensions, initial_vector, stream
from tensorprog.language.symbols import MatrixSpec, VectorSpec, Width

__all__ = ["Population", "PopulationMatrix", "PopulationWarning"]

SOBOL_BITS = 30


class PopulationWarning(UserWarning):
    """The population limit is less accurate than it should be, and why."""


class Samples:
    """The population of one width: it hands out fresh noise and remembers what noise has to be orthogonal to.

    Fresh columns are scrambled Sobol points made normal, then orthonormal to the constant, to all earlier noise and to
    all vectors a matrix has been applied to: in the limit they are independent of those, and the samples say so.

    Args:
        width: Name of the width, for messages.
        component: What the population is of, the width or a component of it; populations of different ones are independent.
        samples: M.
        rng: Seed of the run.
        dimensions: How many Sobol dimensions may be used; 0 for pseudo-random noise.
        expected: Noise columns that will be asked for, about.
    """

    def __init__(
        self, width: str, component: str, samples: int, rng: int, dimensions: int, expected: int = FIRST_DIMENSIONS
    ) -> None:
        self._first = first_dimensions(expected, samples)
        self.width, self.component = width, component
        self.samples, self.rng, self.dimensions = samples, rng, dimensions
        self._span = Basis(samples, 1e-10)
        self._span.extend(np.ones((1, samples)))
        self._points = np.empty((0, samples))  # Sobol dimensions drawn and not used yet
        self._drawn = 0
        self._pseudo = stream(rng, component, "population: pseudo-random", samples)
        self._warned: set[str] = set()

    def remember(self, directions: Array) -> None:
        """All later noise is orthogonal to these, at most `PANEL` rows."""
        self._span.extend(directions)

    def fresh(self, count: int) -> Array:
        """`count` new noise columns, (count, samples), orthonormal in the Euclidean inner product.

        Raises:
            TensorProgramError: The population is too small for the number of directions the program needs.
        """
        out = np.empty((count, self.samples))
        for start in range(0, count, PANEL):
            rows = min(PANEL, count - start)
            _, new = self._span.extend(self._normal(rows))
            if len(new) < rows:
                raise TensorProgramError(
                    f"the population of width {self.width} has {self.samples} samples, and the program has used up all "
                    f"{self._span.rank} directions that they span",
                    why="every random initial vector takes one, and every product with a new vector one or two",
                    fix=f"raise the number of samples (to {8 * self.samples}, say)",
                )
            out[start : start + rows] = new
        if 2 * self._span.rank > self.samples:
            self._warn(
                f"more than half of the {self.samples} directions of the population of width {self.width} are used; "
                "beyond linear programs its errors are large: raise the number of samples"
            )
        return out

    def _normal(self, count: int) -> Array:
        """(count, samples) standard normal coordinates, not orthonormal yet."""
        left = self.dimensions - self._drawn + len(self._points)
        if self.dimensions and left < count:
            self._warn(
                f"the {self.dimensions} Sobol dimensions of the population of width {self.width} are used up; further "
                "noise is pseudo-random, with a larger error: raise `dimensions`"
            )
        quasi = min(count, left)
        while len(self._points) < quasi:
            self._draw()
        rows, self._points = self._points[:quasi], self._points[quasi:]
        return np.concatenate([rows, self._pseudo.standard_normal((count - quasi, self.samples))])

    def _draw(self) -> None:
        """Draw more Sobol dimensions, each with a scramble of its own: what was drawn before stays as it was."""
        total = min(self.dimensions, max(self._first, 2 * self._drawn))
        draw = _remembered if total * self.samples <= REMEMBERED else _sobol
        normal = draw(self.rng, self.component, self.samples, self._drawn, total)
        self._points, self._drawn = np.concatenate([self._points, normal]), total

    def _warn(self, message: str) -> None:
        if message not in self._warned:
            self._warned.add(message)
            warnings.warn(message, PopulationWarning, stacklevel=2)


def _sobol(rng: int, component: str, samples: int, drawn: int, total: int) -> Array:
    """Sobol dimensions from `drawn` up to `total`, made normal: (total - drawn, samples), never to be written to."""
    sobol = qmc.Sobol(
        total, scramble=True, bits=SOBOL_BITS, rng=stream(rng, component, "population: Sobol", samples, drawn)
    )
    points = sobol.random_base2(samples.bit_length() - 1)[:, drawn:]
    # Points are multiples of 2**-bits from 0 on; the middle of the cell is never 0 or 1.
    normal = np.asarray(ndtri(np.ascontiguousarray(points.T) + 0.5 ** (SOBOL_BITS + 1)))
    normal.flags.writeable = False
    return normal


# The populations of one seed draw the same points for every program: they are a third of the cost of a small one.
_remembered = lru_cache(maxsize=32)(_sobol)


class Embedded:
    """U with iid N(0, 1) entries, applied to data: one noise column for each direction that the data spans, not for each feature.

    Columns that no data sees would use up directions of the population, and what has used up a tenth of them is biased.

    Args:
        features: Number of columns of U.
        population: That of the width.
    """

    def __init__(self, features: int, population: Samples) -> None:
        self._population, self._basis, self._noise = population, Basis(features, 1e-12), Rows(population.samples)

    def apply(self, x: Array) -> Array:
        """U x for the rows of x, (count, features) -> (count, samples)."""
        out = np.zeros((len(x), self._population.samples))
        for start in range(0, len(x), PANEL):
            coefficients, new = self._basis.extend(np.asarray(x[start : start + PANEL], dtype=np.float64))
            if len(new):
                noise = self._population.fresh(len(new))
                np.multiply(math.sqrt(self._population.samples), noise, out=self._noise.reserve(len(new)))
                self._noise.commit(len(new))
            self._noise.accumulate(coefficients, out[start : start + PANEL])
        return out


class PopulationMatrix(ImplicitMatrix):
    """The limit of a random matrix, acting on populations.

    Args:
        rows: Population of the outputs of W.
        cols: Population of the inputs of W; it may be the same one.
        var: s^2; entries have variance s^2 / n_cols.
        rho: n_rows / n_cols.
        tolerance: Vectors closer than this to the span of earlier ones, relative to their length, count as lying in it.
    """

    def __init__(self, rows: Samples, cols: Samples, var: float, rho: float, tolerance: float) -> None:
        super().__init__(rows.samples, cols.samples, adjoint=1.0 / rho, tolerance=tolerance)
        self._rows, self._cols, self._std, self._rho = rows, cols, math.sqrt(var), rho

    def fresh(self, directions: Array, out: Array, *, transposed: bool) -> None:
        """Zhat of the new directions: noise columns of the other population."""
        here, there = (self._rows, self._cols) if transposed else (self._cols, self._rows)
        here.remember(directions)  # before the noise is drawn: here and there may be the same population
        np.multiply(there.fresh(len(directions)), self._std * (math.sqrt(self._rho) if transposed else 1.0), out=out)


class Population:
    """Infinite width, by M joint samples of the limit variables of each width.

    Linear programs and random-matrix moments come out exactly (to rounding), other expectations with an error that
    falls a little slower than 1/M. Its size is only seen in the spread over replicas: runs with different `rng`.

    Args:
        samples: M, a power of two (Sobol points); any other number gives pseudo-random noise and a warning.
        rng: Seed of the run; a Generator supplies one.
        dimensions: Largest number of Sobol dimensions a width may use, one a noise column; 0 for pseudo-random noise.
        tolerance: Vectors closer than this to the span of earlier ones, relative to their length, count as lying in it.
            It bounds the number of directions of long smooth programs.
        components: Which vectors of a width meet; by default all.
        columns: Component to the noise columns that the program needs at most, where that is known: many samples are drawn
            in no more dimensions than that.

    Warns:
        PopulationWarning: The noise is not Sobol's, or the samples are too few.
    """

    name = "population"

    def __init__(
        self,
        samples: int = 2048,
        rng: int | np.random.Generator = 0,
        *,
        dimensions: int = qmc.Sobol.MAXDIM,
        tolerance: float = TOLERANCE,
        components: Components | None = None,
        columns: Mapping[str, int] | None = None,
    ) -> None:
        if samples < 2 or samples != int(samples):
            raise TensorProgramError(f"a population of {samples} samples", fix="give a power of two, 2048 for example")
        if not 0 <= dimensions <= qmc.Sobol.MAXDIM:
            raise TensorProgramError(
                f"dimensions={dimensions}", fix=f"give a number of Sobol dimensions from 0 to {qmc.Sobol.MAXDIM}"
            )
        self.samples, self.tolerance, self._dimensions = int(samples), tolerance, int(dimensions)
        if dimensions and self.samples & (self.samples - 1):
            self._dimensions = 0
            warnings.warn(
                f"{samples} samples are not a power of two, so that Sobol points cannot be used: the noise is "
                "pseudo-random, with a larger error; choose a power of two (or dimensions=0 to mean it)",
                PopulationWarning,
                stacklevel=2,
            )
        self._rng = int(rng.integers(2**63)) if isinstance(rng, np.random.Generator) else int(rng)
        self._components, self._columns = components, columns or {}
        self._populations: dict[str, Samples] = {}
        self._embedded: dict[str, Embedded] = {}

    def size(self, width: Width) -> int:
        """M, whatever the width."""
        return self.samples

    def ratio(self, rows: Width, cols: Width) -> float:
        """The limit of n_rows / n_cols."""
        return float(rows.ratio / cols.ratio)

    def inverse_sqrt(self, width: Width) -> float:
        """The limit 0 of n_w**-1/2."""
        return 0.0

    def vector(self, spec: VectorSpec) -> Array:
        """Samples of Z of initial vectors, (*spec.shape, M); Gaussian ones have exactly their mean and covariance."""
        component = self._components.vectors[spec.name] if self._components else spec.width.name
        population, scale = self._population(spec.width, component), math.sqrt(self.samples)
        data = getattr(spec, "data", None)
        if data is not None:  # the same U for all data
            if spec.name not in self._embedded:
                self._embedded[spec.name] = Embedded(data.coordinates.shape[-1], population)
            found = self._embedded[spec.name].apply(data.coordinates.reshape(-1, data.coordinates.shape[-1]))
            return math.sqrt(float(spec.var) / data.features) * found.reshape(*spec.shape, self.samples)
        return initial_vector(spec, self.samples, lambda count: scale * population.fresh(count))

    def matrix(self, spec: MatrixSpec) -> PopulationMatrix:
        """The limit of the matrix; it does not depend on the law of the entries."""
        rho = self.ratio(spec.rows, spec.cols)
        of = self._components.matrices[spec.name] if self._components else (spec.rows.name, spec.cols.name)
        rows, cols = self._population(spec.rows, of[0]), self._population(spec.cols, of[1])
        return PopulationMatrix(rows, cols, float(spec.var), rho, self.tolerance)

    def mean(self, x: Array) -> Array:
        """Moment: the sample mean, shape (*axes,)."""
        return np.asarray(x.mean(axis=-1))

    def _population(self, width: Width, component: str) -> Samples:
        if component not in self._populations:
            expected = self._columns.get(component, FIRST_DIMENSIONS)
            of = (width.name, component, self.samples, self._rng, self._dimensions, expected)
            self._populations[component] = Samples(*of)
        return self._populations[component]
