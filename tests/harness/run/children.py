"""Functions that children run in the tests of the runner; loaded by name, never by the tests
themselves.
"""

import ctypes
import itertools
import json
import mmap
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path


def do_nothing(workspace, parameters):
    """A preparation that works."""


def touch(workspace, parameters):
    """Leave a file behind."""
    (workspace / parameters["name"]).touch()


def wait_forever(workspace, parameters):
    """Never end, and ignore the polite signal."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while True:
        time.sleep(60)


def kill_itself(workspace, parameters):
    """Die by the signal in the parameters."""
    os.kill(os.getpid(), parameters["signal"])


def exit_early(workspace, parameters):
    """Leave without a word, with the code in the parameters."""
    os._exit(parameters["code"])


def leave_a_grandchild(workspace, parameters):
    """Start a process that would outlive this one, and note its id."""
    grandchild = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    Path(workspace, "grandchild").write_text(str(grandchild.pid))


def leave_a_session(workspace, parameters):
    """Start a process that leaves this one's group, with a child of its own, and note both ids."""
    left = subprocess.Popen(
        ["sh", "-c", "sleep 600 & echo $!; wait"],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    Path(workspace, "left").write_text(f"{left.pid} {left.stdout.readline()}")


def fail(workspace, parameters):
    """Raise an error with a sentence."""
    raise ValueError("the beam was off")


def take(workspace, parameters):
    """Take memory in the named way: ``bytes`` of it."""
    TAKING[parameters["way"]](parameters["bytes"], workspace)


def _at_once(amount_bytes, workspace):
    held = mmap.mmap(-1, amount_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    ctypes.memset(ctypes.addressof(ctypes.c_char.from_buffer(held)), 1, amount_bytes)


def _in_huge_pages(amount_bytes, workspace):
    held = mmap.mmap(-1, amount_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    held.madvise(mmap.MADV_HUGEPAGE)
    ctypes.memset(ctypes.addressof(ctypes.c_char.from_buffer(held)), 1, amount_bytes)


def _bit_by_bit(amount_bytes, workspace):
    held = []
    while len(held) << 20 < amount_bytes:
        held.append(b"1" * (1 << 20))


def _in_two_threads(amount_bytes, workspace):
    threads = [
        threading.Thread(target=_at_once, args=(amount_bytes // 2, workspace)) for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _in_many_forks(amount_bytes, workspace):
    # Each holds little; together they are too much within some milliseconds.
    children = [
        multiprocessing.get_context("fork").Process(target=_hold, args=(amount_bytes // 16,))
        for _ in range(16)
    ]
    for child in children:
        child.start()
    for child in children:
        child.join()


def _in_a_session_of_its_own(amount_bytes, workspace):
    code = (
        "import os, sys; print(os.getpid(), flush=True); held = b'1' * int(sys.argv[1]); "
        "sys.stdin.read()"
    )
    with Path(workspace, "taker").open("wb") as told:
        taker = [sys.executable, "-c", code, str(amount_bytes)]
        subprocess.Popen(taker, stdin=subprocess.PIPE, stdout=told, start_new_session=True).wait()


def _hold(amount_bytes):
    held = b"1" * amount_bytes
    signal.pause()
    del held


def _untouched(amount_bytes, workspace):
    mmap.mmap(-1, amount_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)[0] = 1


def _in_stacks_of_threads(amount_bytes, workspace):
    # As large as most systems have them (ulimit -s), whatever it is here; of each hardly any is
    # touched.
    threading.stack_size(8 << 20)
    count = amount_bytes >> 23
    meet = threading.Barrier(count + 1)
    for _ in range(count):
        threading.Thread(target=meet.wait).start()
    meet.wait()


def _in_a_file(amount_bytes, workspace):
    path = Path(workspace, "file")
    with path.open("wb") as file:
        for _ in range(amount_bytes >> 20):
            file.write(b"1" * (1 << 20))
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        assert sum(mapped[offset] for offset in range(0, len(mapped), mmap.PAGESIZE)) == ord(
            "1"
        ) * (amount_bytes // mmap.PAGESIZE)


TAKING = {
    "at once": _at_once,
    "in huge pages": _in_huge_pages,
    "bit by bit": _bit_by_bit,
    "in two threads": _in_two_threads,
    "in many forks": _in_many_forks,
    "in a session of its own": _in_a_session_of_its_own,
    "untouched": _untouched,
    "in stacks of threads": _in_stacks_of_threads,
    "in a file": _in_a_file,
}


def take_in_second_phase(memory, parameters):
    """As ``take``, after a phase that has gone well."""
    with memory.phase("first"):
        pass
    with memory.phase("second"):
        take(memory.workspace, parameters)


def no_device(device):
    """For bodies that use none."""
    return "CPU:0"


def share_too_much(workspace, parameters):
    """Fill memory that is shared, and therefore no part of the data segment; then wait to be
    stopped.
    """
    with mmap.mmap(-1, parameters["bytes"]) as shared:
        for offset in range(0, len(shared), mmap.PAGESIZE):
            shared[offset] = 1
        signal.pause()


def show_environment(workspace, parameters):
    """Write down what the parent handed over."""
    Path(workspace, "environment").write_text(
        f"{os.environ.get('MARK')} {os.getpgrp() == os.getpid()} "
        f"{Path('/proc/self/oom_score_adj').read_text().strip()}"
    )


def die_in_second_phase(memory, parameters):
    """Finish one phase and be killed by SIGKILL in the next."""
    with memory.phase("first"):
        pass
    with memory.phase("second"):
        os.kill(os.getpid(), signal.SIGKILL)


def allocate_on_device(memory, parameters):
    """Hold known bytes, then a temporary of twice as many."""
    import tensorflow as tf

    amount_bytes = parameters["amount_bytes"]
    # the op's own constants, some 256 B, are cached before the first phase
    tf.zeros([amount_bytes], tf.uint8)
    tf.zeros([2 * amount_bytes], tf.uint8)
    memory.declare(arrays=amount_bytes)
    with memory.phase("hold"):
        held = tf.zeros([amount_bytes], tf.uint8)
    with memory.phase("temporary"):
        temporary = tf.zeros([2 * amount_bytes], tf.uint8)
        del temporary
    with memory.phase("release"):
        del held


def exhaust_device(memory, parameters):
    """Ask for more than the budget in the second phase."""
    import tensorflow as tf

    with memory.phase("fits"):
        held = tf.zeros([parameters["amount_bytes"]], tf.uint8)
    with memory.phase("does_not_fit"):
        tf.zeros([64 * parameters["amount_bytes"]], tf.uint8)
    del held


def declare_environment(memory, parameters):
    """Leave the named variables of this process in the workspace."""
    with memory.phase("look"):
        found = {name: os.environ.get(name) for name in parameters["names"].split(",")}
    memory.workspace.mkdir(exist_ok=True)
    (memory.workspace / "environment.json").write_text(json.dumps(found))


def nothing_at_all(memory, parameters):
    """A body without a phase."""


def misuse(memory, parameters):
    """A mistake that the harness finds: phases within each other or twice, an amount that is
    none.
    """
    with memory.phase("load"):
        if parameters["how"] == "nested":
            with memory.phase("epoch"):
                pass
        if parameters["how"] == "declared":
            memory.declare(batch="many")
    with memory.phase("load"):
        pass


def multiply(memory, parameters):
    """One operation with a known answer, and the bytes it took; every run of the point leaves its
    answer.
    """
    import tensorflow as tf

    with memory.phase("multiply"):
        matrix = tf.reshape(tf.range(1024.0 * 1024.0), [1024, 1024])
        product = tf.linalg.matvec(matrix, tf.ones([1024]))
    answers = os.open(memory.workspace / "answers", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.write(answers, f"{float(product[-1])}\n".encode())


def end_as_told(memory, parameters):
    """Go through a phase and end in the next, in the way that the parameters name."""
    with memory.phase("first"):
        pass
    with memory.phase("second"):
        WAYS[parameters["way"]](parameters)


def _segfault(parameters):
    ctypes.string_at(0)


def _copy_beyond_the_device(parameters):
    import numpy as np
    import tensorflow as tf

    # One byte off, so that TensorFlow cannot keep the array itself.
    tf.constant(np.zeros(parameters["amount_bytes"] + 1, np.uint8)[1:])


def _refused_then_segfault(parameters):
    import tensorflow as tf

    try:
        tf.zeros([parameters["amount_bytes"]], tf.uint8)
    except tf.errors.ResourceExhaustedError:
        ctypes.string_at(0)


def _operation_beyond_the_device(parameters):
    import tensorflow as tf

    tf.zeros([parameters["amount_bytes"]], tf.uint8)


def _fragmented_device(parameters):
    import tensorflow as tf

    # Eighths of the pool, every other one let go: half of it is free, and no piece larger than an
    # eighth.
    eighths = [tf.zeros([parameters["amount_bytes"] // 8], tf.uint8) for _ in range(6)]
    del eighths[::2]
    tf.test.experimental.sync_devices()
    tf.config.experimental.reset_memory_stats("CPU:0")
    tf.zeros([parameters["amount_bytes"] // 4], tf.uint8)


def _host_refuses_the_allocator(parameters):
    import resource

    import tensorflow as tf

    data_kib = next(
        line
        for line in Path("/proc/self/status").read_text().splitlines()
        if line.startswith("VmData")
    ).split()[1]
    little_bytes = int(data_kib) * 1024 + parameters["amount_bytes"] // 4
    resource.setrlimit(resource.RLIMIT_DATA, (little_bytes, little_bytes))
    tf.zeros([parameters["amount_bytes"]], tf.uint8)


def _interleave(parameters):
    import tensorflow as tf

    count = parameters["threads"]
    each = tf.data.Dataset.range(count).interleave(
        lambda number: tf.data.Dataset.from_tensors(tf.fill((64,), number)),
        cycle_length=count,
        num_parallel_calls=tf.data.AUTOTUNE,
    )
    assert sum(1 for _ in each) == count


def _bad_alloc(parameters):
    new = ctypes.CDLL("libstdc++.so.6")["_Znwm"]  # operator new(unsigned long)
    new.argtypes, new.restype = [ctypes.c_size_t], ctypes.c_void_p
    new(1 << 46)


def _fill_shared_memory(parameters):
    with mmap.mmap(-1, parameters["amount_bytes"]) as shared:
        for offset in range(0, len(shared), mmap.PAGESIZE):
            shared[offset] = 1
        _never_end(parameters)


def _fill_memory_of_other_processes(parameters):
    code = "import sys; held = bytearray(b'1') * int(sys.argv[1]); sys.stdin.read()"
    # Each has a limit of its own, as large as that of this process.
    for _ in range(2):
        subprocess.Popen(
            [sys.executable, "-c", code, str(parameters["amount_bytes"] // 2)],
            stdin=subprocess.PIPE,
        )
    _never_end(parameters)


def _fill_a_cgroup(parameters):
    Path(parameters["cgroup"], "cgroup.procs").write_text(str(os.getpid()))
    bytearray(b"1") * parameters["amount_bytes"]


def _never_end(parameters):
    for _ in itertools.count():
        pass


def _sleep_for_ever(parameters):
    while True:
        time.sleep(60)


def _exit(parameters):
    os._exit(parameters["code"])


def _kill(parameters):
    os.kill(os.getpid(), parameters["signal"])


def _allocate(parameters):
    bytearray(parameters["amount_bytes"])


def _fail(parameters):
    raise ValueError("the beam was off")


def _limit_file_size(parameters):
    import resource

    here = Path(parameters["rows"]).stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (here + parameters["more"], resource.RLIM_INFINITY))


WAYS = {
    name.removeprefix("_"): value
    for name, value in list(globals().items())
    if name.startswith("_") and callable(value)
}


def use_device_as_it_is(device):
    """Start TensorFlow on the emulated device without taking its pool."""
    import tensorflow as tf

    tf.zeros([]).numpy()
    return "CPU:0"


def find_no_device(device):
    """There is none."""
    from harness.errors import DeviceUnavailable

    raise DeviceUnavailable("TensorFlow sees no GPU")
