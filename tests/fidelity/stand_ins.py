"""Stand-ins for modules that an architecture's package imports and its networks do not use."""

import importlib.abc
import importlib.machinery
import importlib.metadata
import importlib.util
import sys
import types


def _anything(name):
    """Return a class of the name, a new one each time, since some packages use them as keys."""
    if name.startswith("__"):
        raise AttributeError(name)
    return type(name, (Anything,), {})


class _AnythingMeta(type):
    """A class of which every attribute is there."""

    def __getattr__(cls, name):
        return _anything(name)


class Anything(metaclass=_AnythingMeta):
    """A base class, a decorator, an enumeration: what importing a package asks of a name."""

    def __init__(self, *args, **kwargs):
        pass

    def __call__(self, *args, **kwargs):
        return args[0] if args and callable(args[0]) else Anything()

    def __getattr__(self, name):
        return _anything(name)

    def __getitem__(self, key):
        return Anything()


class _Module(types.ModuleType):
    """A module in which every name is there."""

    def __getattr__(self, name):
        return _anything(name)


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Find the modules of packages that are not installed."""

    def __init__(self, packages):
        self.packages = set(packages)

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in self.packages:
            return None
        return importlib.machinery.ModuleSpec(name, self, is_package=True)

    def create_module(self, spec):
        module = _Module(spec.name)
        module.__version__ = "0.28.0"
        return module

    def exec_module(self, module):
        pass


def install(*packages):
    """Let those of the packages that are not installed be imported all the same."""
    missing = [package for package in packages if importlib.util.find_spec(package) is None]
    sys.meta_path.append(_Finder(missing))
    version = importlib.metadata.version
    importlib.metadata.version = lambda name: "0.28.0" if name in missing else version(name)
