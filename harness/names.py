"""Texts of the user's as parts of names: on one line, and short enough that a file can be called
so.
"""

from harness.errors import UsageError

MOST_BYTES = 160
"""Chosen: a file's name may have 255 bytes on the common file systems (NAME_MAX), and the longest
addition to a point's name is that of a file half written, about 30; the rest is room for those of
other programs."""
_DIGEST_CHARACTERS = 10
MOST_PHASE_CHARACTERS = 100
"""Of the name of a phase. Chosen: a line of a terminal, with a point before it and amounts after
it, can still be read."""


def file_stem(name: str) -> str:
    """What files are called that belong to a point: its name, with a digest of it where a slash
    would make a folder of it.
    """
    return (
        name
        if "/" not in name
        else f"{name.replace('/', '_')}-{_digest(name.encode('utf-8', 'surrogatepass'))}"
    )


def phase_name(name: object) -> str:
    """The name of a phase as a plain text. Raises UsageError for what is no text, empty, of several
    lines, or endless.
    """
    if not isinstance(name, str):
        text = "" if name is None or isinstance(name, bytes | list | dict) else str(name)
        example = repr(
            text if text.isprintable() and 0 < len(text) <= MOST_PHASE_CHARACTERS else "construct"
        )
        raise UsageError(
            f"the name of a phase is a text, and {_shown(name)} is none; write "
            f"memory.phase({example})"
        )
    plain = str.__str__(name)
    if not plain.strip():
        raise UsageError(
            f"the name of a phase is {plain!r}, which nobody can read; write one, as "
            "memory.phase('construct')"
        )
    if not plain.isprintable():
        raise UsageError(
            f"the name of a phase, {_shown(plain)}, has a line break, a tab or another "
            "character that cannot be shown; leave it out"
        )
    if len(plain) > MOST_PHASE_CHARACTERS:
        raise UsageError(
            f"the name of a phase, {_shown(plain)}, has {len(plain)} characters; write one "
            f"of {MOST_PHASE_CHARACTERS} at most"
        )
    return plain


def _shown(value: object) -> str:
    text = repr(value)
    return (
        text if len(text) <= MOST_PHASE_CHARACTERS else f"{text[: MOST_PHASE_CHARACTERS - 4]} ..."
    )


def one_line(text: str) -> str:
    r"""The text without line breaks, tabs and control characters: each is written as in Python,
    ``"\n"`` as ``"\\n"``.

    Backslashes are doubled, so that two texts never look alike.
    """
    if text.isprintable() and "\\" not in text:
        return text
    return "".join(
        char if char.isprintable() and char != "\\" else char.encode("unicode_escape").decode()
        for char in text
    )


def shortened(text: str, most_bytes: int = MOST_BYTES) -> str:
    """The text if it has at most ``most_bytes`` bytes in UTF-8, else its beginning and a digest of
    all of it.
    """
    encoded = text.encode("utf-8", "surrogatepass")
    if len(encoded) <= most_bytes:
        return text
    # A character that is cut in two is left out.
    beginning = encoded[: most_bytes - _DIGEST_CHARACTERS - 1].decode("utf-8", "ignore")
    return f"{beginning}-{_digest(encoded)}"


def _digest(encoded: bytes) -> str:
    import hashlib  # loads OpenSSL, which no child should have in its memory for nothing

    return hashlib.sha256(encoded).hexdigest()[:_DIGEST_CHARACTERS]
