"""What TensorFlow sees of the one card that the environment makes visible, asked in a process of
its own; JSON on the last line.

TensorFlow's warnings, which alone say why it sees none, go to standard error.
"""

import ctypes
import json
import sys

import tensorflow as tf


def main() -> int:
    """Print TensorFlow's version, whether it is a build with CUDA, how many cards it sees, and
    whether CUDA's driver is there.
    """
    found = {
        "tensorflow": tf.__version__,
        "is_cuda_build": bool(tf.test.is_built_with_cuda()),
        "cards": len(tf.config.list_physical_devices("GPU")),
        "has_libcuda": _has("libcuda.so.1"),
    }
    sys.stdout.write(json.dumps(found) + "\n")
    return 0


def _has(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())
