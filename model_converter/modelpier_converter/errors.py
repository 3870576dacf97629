"""What can go wrong in a conversion.

::

    ConversionError         shown without a traceback; exit code 1
    ├── SourceError         the model that was given cannot be converted: says which file or field, and what can be
    └── VerificationError   the converted model does not do what the original does; no file is left behind
"""

from __future__ import annotations


class ConversionError(Exception):
    """Root of all."""


class SourceError(ConversionError):
    """The source is not one that this converter takes."""


class VerificationError(ConversionError):
    """The result was tried and is wrong."""
