"""What the neighbours' tests have run in workers; importable there."""

from typing import Any


def log_normal(x: Any) -> float:
    """Return the logarithm of a standard normal density, but for a constant."""
    return -0.5 * float((x**2).sum())


def unit_cube(u: Any) -> Any:
    """Map the unit cube to the box from -5 to 5."""
    return 10.0 * u - 5.0


def rosenbrock(x: Any) -> float:
    """Return Rosenbrock's function."""
    return float(sum(100.0 * (x[1:] - x[:-1] ** 2.0) ** 2.0 + (1 - x[:-1]) ** 2.0))


def square(x: float) -> float:
    """Return the square."""
    return x * x
