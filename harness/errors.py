"""Errors a user can act on: one base class, small leaves that are also the builtin they mean."""


class HarnessError(Exception):
    """A mistake that the user can correct. The message says what was asked, what was found and what
    to do.
    """


class UsageError(HarnessError, ValueError):
    """A setting, option or argument that cannot be used as given."""


class BytesError(UsageError):
    """A text that is not an amount of bytes."""


class RunDirectoryError(HarnessError, OSError):
    """A run directory that cannot be read or written, or whose contents are damaged."""


class PolicyError(UsageError):
    """A gate policy file that cannot be used as written."""


class BaselineError(HarnessError, ValueError):
    """A baseline file that cannot be read, or a run that may not become one."""


class PageError(HarnessError, RuntimeError):
    """The page of a judgement could not be drawn; its other files are written, and the message says
    why.
    """


class MeterUnavailable(HarnessError, RuntimeError):  # noqa: N818 - a state of the machine, not a mistake
    """A meter that cannot read here; the message is the reason that the tables show."""


class CodeUnavailable(HarnessError, ImportError):  # noqa: N818 - a state of the code, not a mistake of the harness's user alone
    """Code that a child should run and cannot import; the message says which, where it was looked
    for, and why.
    """


class DeviceUnavailable(HarnessError, RuntimeError):  # noqa: N818 - a state of the machine, not a mistake
    """The device that was asked for cannot be used here; the message says why."""


class DriverRefused(MeterUnavailable, DeviceUnavailable):
    """NVIDIA's driver does not tell what a meter or the choice of a device has asked; the message
    says why.
    """

    def __init__(self, message: str, *, code: int | None = None) -> None:
        super().__init__(message)
        self.code = code
        """NVML's own (nvmlReturn_t); None where it answered, and what was asked is not in it."""


class GitError(HarnessError, RuntimeError):
    """Git cannot be run, or refuses what it was asked; the message has its own words."""

    def __init__(
        self, message: str, *, failure: str, exit_code: int | None, said: tuple[str, ...]
    ) -> None:
        super().__init__(message)
        self.failure = failure
        """Name of the error behind it: FileNotFoundError, TimeoutExpired, CalledProcessError."""
        self.exit_code = exit_code
        """None where git could not be run, or did not come to its end."""
        self.said = said
        """The lines that git wrote to standard error."""
