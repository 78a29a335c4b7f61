"""Replacements for what Python 3.7 lacks, for the modules copied into a scoring program (`harness.challenges.bundle`).

Codabench's documented default image runs Python 3.7. Those modules keep to its syntax, and take from here what its library
does not have.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING or sys.version_info >= (3, 8):
    from typing import Literal as Literal
else:

    class Literal:
        """`typing.Literal`: at run time, anything."""

        def __class_getitem__(cls, values):
            return Any


if TYPE_CHECKING or sys.version_info >= (3, 12):
    from functools import cached_property as cached_property
else:

    class cached_property:
        """`functools.cached_property`: computed once, then an attribute of the instance.

        Before Python 3.12 that one lets a single thread compute it at a time, for all instances together.
        """

        def __init__(self, function):
            self.function = function

        def __set_name__(self, owner, name):
            self.name = name

        def __get__(self, instance, owner=None):
            if instance is None:
                return self
            value = instance.__dict__[self.name] = self.function(instance)
            return value
