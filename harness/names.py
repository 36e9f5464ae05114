"""Texts of the user's as parts of names: on one line, and short enough that a file can be called so."""

MOST_BYTES = 160
"""Chosen: a file's name may have 255 bytes on the common file systems (NAME_MAX), and the longest addition to a point's name
is that of a file half written, about 30; the rest is room for those of other programs."""
_DIGEST_CHARACTERS = 10


def one_line(text: str) -> str:
    r"""The text without line breaks, tabs and control characters: each is written as in Python, ``"\n"`` as ``"\\n"``.

    Backslashes are doubled, so that two texts never look alike.
    """
    if text.isprintable() and "\\" not in text:
        return text
    return "".join(char if char.isprintable() and char != "\\" else char.encode("unicode_escape").decode() for char in text)


def shortened(text: str, most_bytes: int = MOST_BYTES) -> str:
    """The text if it has at most ``most_bytes`` bytes in UTF-8, else its beginning and a digest of all of it."""
    encoded = text.encode("utf-8", "surrogatepass")
    if len(encoded) <= most_bytes:
        return text
    import hashlib  # loads OpenSSL, which no child should have in its memory for nothing

    digest = hashlib.sha256(encoded).hexdigest()[:_DIGEST_CHARACTERS]
    # A character that is cut in two is left out.
    return f"{encoded[: most_bytes - _DIGEST_CHARACTERS - 1].decode('utf-8', 'ignore')}-{digest}"
