"""Packages of the extra ``[train]``."""

from edgecount.errors import MissingExtraError


def require_torch() -> None:
    """Say which extra to install when PyTorch is missing.

    Raises:
        MissingExtraError: PyTorch is not installed.
    """
    try:
        import torch  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("torch", "train") from error
