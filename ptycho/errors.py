"""Errors a user can act on: one base class, small leaves that are also the builtin they mean."""


class PtychoError(Exception):
    """Something the user can mend; the message says what was asked, what was found and what to do,
    in one line.
    """

    def __str__(self) -> str:
        # Here, once: paths, keys and other people's texts come into messages everywhere.
        return one_line(super().__str__())


class ScanError(PtychoError, ValueError):
    """The contents of a scan that cannot be used as they are."""


class ScanFileError(PtychoError, OSError):
    """A scan file, or the folder its spooled copy goes to, that cannot be read or written."""


class ContainerError(PtychoError, ValueError):
    """Arguments of a container, a grouping or a dataset that do not fit together."""


def one_line(text: str) -> str:
    """``text`` with everything that does not print (line ends, control codes, undecodable bytes) as
    Python escapes.
    """
    return (
        text
        if text.isprintable()
        else "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)
    )
