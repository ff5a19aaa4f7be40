"""The theory of contrastive learning, executable.

Submodules are loaded on first use, so that ``import cltheory`` stays fast and the symbolic checks
run where PyTorch is not installed.
"""

from importlib import import_module
from pathlib import Path
from types import ModuleType

__version__ = "0.1.0"

_MODULES = sorted(path.stem for path in Path(__file__).parent.glob("[a-z]*.py"))
__all__ = [*_MODULES]


def __getattr__(name: str) -> ModuleType:
    if name in _MODULES:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*_MODULES, "__version__"]
