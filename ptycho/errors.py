"""Errors a user can act on: one base class, small leaves that are also the builtin they mean."""


class PtychoError(Exception):
    """Something the user can mend; the message says what was asked, what was found and what to do."""


class ScanError(PtychoError, ValueError):
    """The contents of a scan that cannot be used as they are."""


class ScanFileError(PtychoError, OSError):
    """A scan file, or the folder its spooled copy goes to, that cannot be read or written."""


class ContainerError(PtychoError, ValueError):
    """Arguments of a container, a grouping or a dataset that do not fit together."""
