"""Bayesian hyperparameter search for fine-tuning pretrained biosignal encoders.

The names of ``__all__`` are what may be used from Python (docs/python.md). Each is loaded at its first use,
so that ``import hpo`` costs nothing.
"""

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

__all__ = [
    "Answer",
    "Configuration",
    "HpoError",
    "Interrupted",
    "Study",
    "StudySpec",
    "__version__",
    "confirm",
    "load",
    "run",
    "studies",
]

if TYPE_CHECKING:
    from hpo.analysis.values import Answer
    from hpo.errors import HpoError, Interrupted
    from hpo.library import Study, confirm, load, run, studies
    from hpo.study import Configuration, StudySpec


def __getattr__(name: str) -> Any:
    if name == "Answer":
        from hpo.analysis.values import Answer

        return Answer
    if name not in __all__:
        raise AttributeError(f"module 'hpo' has no attribute {name!r}")
    from hpo import library

    return getattr(library, name)


class _Public(ModuleType):
    """This package: the import of a submodule does not take the place of a public function of its name.

    Python sets ``hpo.confirm`` to the package hpo/confirm when that is imported; here it stays the function.
    ``from hpo.confirm import ...`` finds the package all the same.
    """

    def __setattr__(self, name: str, value: object) -> None:
        if not (name in __all__ and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Public
