"""Maps the repository's root to the package ``faceveil``; everything else is in pyproject.toml."""

from setuptools import find_packages, setup

# Listed by discovery, so that a new method's package needs no edit here.
FOUND = find_packages(include=["nodes*", "pipelines*", "weights*"])
setup(packages=["faceveil", *(f"faceveil.{name}" for name in FOUND)])
