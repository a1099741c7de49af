"""Every error that edgecount raises, in one tree.

A message says what happened, where, and what to do about it. Errors of other
libraries are translated where they are met (``raise SourceError(...) from error``)
and never cross a package boundary.

The exit code of the command line follows the class: usage and configuration
mistakes end with 2, everything else with 1.
"""


class EdgecountError(Exception):
    """Base of all errors that a caller of edgecount may catch."""

    exit_code = 1


class ConfigError(EdgecountError):
    """The configuration, a command-line value or a recipe is wrong; a person must change it."""

    exit_code = 2


class SourceError(EdgecountError):
    """A camera or file cannot be opened or read.

    ``retry`` is true where opening it again later can help (a camera that is away)
    and false where it cannot (a file that does not exist). ``retry_after`` is the least
    time to wait before that, in seconds: cameras lock out whoever tries a wrong password
    too often.
    """

    def __init__(self, message: str, *, retry: bool = True, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.retry = retry
        self.retry_after = retry_after


class ModelError(EdgecountError):
    """A model file cannot be loaded, or does not fit its recipe."""

    exit_code = 2


class EngineError(EdgecountError):
    """The inference engine or the device failed."""


class DeviceLostError(EngineError):
    """The accelerator is gone or in a state that only a new context clears."""


class PublishError(EdgecountError):
    """A message could not be handed to the broker.

    ``retry`` is true where it is worth trying again (broker away) and false where a
    person must act (login refused).
    """

    def __init__(self, message: str, *, retry: bool = True) -> None:
        super().__init__(message)
        self.retry = retry


class LedgerError(EdgecountError):
    """The ledger file cannot be read or written; counting goes on in memory."""


class DatasetError(EdgecountError):
    """Data for training, calibration or evaluation is missing or malformed."""

    exit_code = 2


class MissingExtraError(EdgecountError):
    """An optional dependency is not installed; the message names the extra to install."""

    exit_code = 2

    def __init__(self, module: str, extra: str) -> None:
        super().__init__(
            f"this command needs the Python package {module!r}, which is not installed: "
            f"run  pip install 'edgecount[{extra}]'"
        )
