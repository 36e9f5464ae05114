"""The registry of planted regressions: what each is, what it costs, and what the gate has to say
about it.

Planted into the points of the catalogue, which keep their names, settings and policy. Imports no
TensorFlow: the bugs are functions in ``bugs``, named by string, and loaded in the child alone.
"""

# ruff: noqa: E501 - one row of the table for each kind

import dataclasses
from dataclasses import dataclass
from enum import StrEnum

from harness.meters import DEVICE_IN_USE, HOST_ANON, HOST_RSS
from harness.records import Point
from scenarios.catalog import BATCH_SIZE, FRAME_SIZE, GRIDSIZE, IMAGE_COUNTS, MIB

PLANT_VARIABLE = "PLANTED_REGRESSION"
"""In the environment of a planted point's children: the name of the plant."""
BODY_VARIABLE = "PLANTED_BODY"
"""And the body that would run without it."""

FRAME_BYTES = FRAME_SIZE**2 * 4
"""One frame as float32."""
IMAGE_BYTES = GRIDSIZE**2 * FRAME_BYTES
"""X of one image."""
BATCH_BYTES = BATCH_SIZE * IMAGE_BYTES
"""X of one batch."""
BAR_BYTES_PER_IMAGE = 1024
"""What costs as much for each image has to be found, as has what costs a batch."""
BAR_BYTES_PER_FRAME = 256
"""As has what costs 1/64 of a frame for each further frame of the stack: the policy promises an
eightieth."""

BAR_BYTES_PER_ROUND = 128 * 1024
"""As has what a container and its datasets leave behind: twice what the policy promises."""
RECORD_BYTES, SINGLE_RECORD_BYTES = 3072, 2048
"""What notes of an image take in kinds that the limits of a phase's growth let pass."""

LAZY, EAGER, ARRAYS = "loading and lazy", "loading and eager", "arrays and lazy"
TRAINING, INFERENCE = "training and lazy", "inference and lazy"
HDF5, RAW_DATA, LIFETIMES = "feeds and hdf5", "feeds and raw_data", "lifetimes"
FORMATS, SCRIPTS, SETTINGS = "formats", "scripts", "settings"


class Per(StrEnum):
    """What a cost is multiplied by."""

    ONCE = "once"
    EPOCH = "epoch"
    IMAGE = "image"
    PAIR = "pair of images"
    FRAME = "frame of the stack"
    ROUND = "round of a loop"


class Reach(StrEnum):
    """Whether a plant is one that the gate promises to find."""

    ABOVE = "above the bar"
    """It costs a batch, 1,024 B for each image, or 256 B for each frame of the stack, or more: all
    of these have to be found."""
    BELOW = "below the bar"
    """Less, or nothing at all: found or not, it is reported."""
    OUTSIDE = "outside"
    """Memory that no meter of the child reads, whatever the amount: a known limit, which is
    reported."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """A finding that tells the plant for what it is; empty fields may be anything."""

    rule: str
    phase: str = ""
    meter: str = ""

    def matches(self, rule: str, phase: str, meter: str) -> bool:
        """Whether a finding of this rule, phase and meter is one."""
        asked, found = (self.rule, self.phase, self.meter), (rule, phase, meter)
        return all(not wanted or wanted == seen for wanted, seen in zip(asked, found, strict=True))


@dataclass(frozen=True, slots=True, kw_only=True)
class Plant:
    """One kind of regression."""

    name: str
    function: str
    """``"package.module:function"`` that puts it in."""
    bug: str
    """One sentence, as the programmer who wrote it would say it."""
    cost_bytes: int
    """For each ``per``, at N = 64, C = 4 and batches of 64 (training and inference: N = 32, batches
    of 4)."""
    per: Per
    expected: Expected | None
    """What must be among the findings; None for one that the gate cannot see."""
    points: str = LAZY
    """Words that choose points of the sweep, as -k takes them."""
    first_in: str = ""
    """The phase that it begins in, where that is an earlier one than the finding's."""
    is_regression: bool = True
    """False for what costs less than before, or nothing: a finding all the same."""
    is_outside: bool = False

    @property
    def loader(self) -> str:
        """The loader of its points."""
        return "eager" if "eager" in self.points.split() else "lazy"

    @property
    def begins(self) -> str:
        """The phase that it begins in."""
        return self.first_in or ("" if self.expected is None else self.expected.phase)

    @property
    def reach(self) -> Reach:
        """By what it costs: see ``Reach``."""
        if self.is_outside:
            return Reach.OUTSIDE
        bars = {
            Per.ONCE: BATCH_BYTES,
            Per.EPOCH: BATCH_BYTES,
            Per.IMAGE: BAR_BYTES_PER_IMAGE,
            Per.FRAME: BAR_BYTES_PER_FRAME,
        }
        bars[Per.ROUND] = BAR_BYTES_PER_ROUND
        # Pairs: what each image costs at the largest scan.
        bars[Per.PAIR] = -(-BAR_BYTES_PER_IMAGE // IMAGE_COUNTS[-1])
        return (
            Reach.ABOVE if self.is_regression and self.cost_bytes >= bars[self.per] else Reach.BELOW
        )


def _in(module: str) -> str:
    return f"scenarios.detector.bugs.{module}:"


def _plant(
    module: str,
    name: str,
    bug: str,
    cost_bytes: int,
    per: Per,
    expected: tuple[str, ...] | None,
    points: str = LAZY,
    *,
    first_in: str = "",
    is_regression: bool = True,
    is_outside: bool = False,
) -> Plant:
    """A row; ``expected`` is rule, phase and meter, as far as they are given."""
    rule, phase, meter = (*(expected or ()), "", "", "")[:3]
    return Plant(
        name=name,
        function=_in(module) + name,
        bug=bug,
        cost_bytes=cost_bytes,
        per=per,
        expected=Expected(rule=rule, phase=phase, meter=meter) if expected else None,
        points=points,
        first_in=first_in,
        is_regression=is_regression,
        is_outside=is_outside,
    )


_DEVICE, _HOST = DEVICE_IN_USE, HOST_ANON
_C, _S, _E, _F, _W = "construct", "stream", "elsewhere", "finer", "ways"
_SMALL_IMAGE_BYTES = 32 * 32 * 4
"""X of one image in training: N = 32, C = 1."""

PLANTS = (
    # --- at construction, for each image ---
    _plant(_C, "full_tensor_kept", "self._X = every image, on the device", IMAGE_BYTES, Per.IMAGE, ("slope", "construct", _DEVICE)),
    _plant(_C, "full_tensor_freed", "a mean over all images, on the device", IMAGE_BYTES, Per.IMAGE, ("slope", "construct", _DEVICE)),
    _plant(_C, "full_array_kept", "self._X = np.asarray(X)", IMAGE_BYTES, Per.IMAGE, ("slope", "construct", _HOST)),
    _plant(_C, "full_array_freed", "np.asarray(X).mean()", IMAGE_BYTES, Per.IMAGE, ("slope", "construct", _HOST)),
    _plant(_C, "one_channel_kept", "a preview of one channel, on the device", FRAME_BYTES, Per.IMAGE, ("slope", "construct", _DEVICE)),
    _plant(_C, "half_precision_kept", "a cache of all images as float16", IMAGE_BYTES // 2, Per.IMAGE, ("slope", "construct", _HOST)),
    _plant(_C, "imported_tensor_kept", "a tensor over numpy memory, by dlpack", IMAGE_BYTES, Per.IMAGE, ("slope", "construct", _HOST)),
    _plant(_C, "variable_kept", "the images as a tf.Variable", IMAGE_BYTES, Per.IMAGE, ("slope", "construct", _DEVICE)),
    _plant(_C, "truth_kept", "Y, complex64, at construction", 2 * IMAGE_BYTES, Per.IMAGE, ("slope", "construct", _DEVICE)),
    _plant(_C, "shared_memory_kept", "a copy in shared memory, for workers", IMAGE_BYTES, Per.IMAGE, ("slope", "construct", _HOST)),
    _plant(_C, "copy_in_another_process", "a helper process that holds all images", IMAGE_BYTES, Per.IMAGE, ("slope", "construct", _HOST)),
    _plant(_C, "records_of_groups", "a dictionary for every group", BAR_BYTES_PER_IMAGE, Per.IMAGE, ("slope", "construct", _HOST)),
    _plant(
        _C, "coordinates_above_the_bar", "sixteen copies of the coordinates, float64, on the device",
        BAR_BYTES_PER_IMAGE, Per.IMAGE, ("slope", "construct", _DEVICE),
    ),
    _plant(
        _C, "coordinates_on_the_host", "sixteen copies of the coordinates, float64, in numpy",
        BAR_BYTES_PER_IMAGE, Per.IMAGE, ("slope", "release", _HOST), first_in="construct",
    ),
    _plant(_C, "distances_of_all_pairs", "a matrix of all distances, to find neighbours", 8, Per.PAIR, ("slope", "construct", _HOST)),
    # --- at construction, whatever the number of images ---
    _plant(_C, "two_batches_reserved", "buffers for two batches, on the device", 2 * BATCH_BYTES, Per.ONCE, ("budget", "construct", _DEVICE)),
    _plant(_C, "one_batch_reserved", "a buffer for one batch, on the device", BATCH_BYTES, Per.ONCE, ("budget", "construct", _DEVICE)),
    _plant(_C, "one_batch_on_the_host", "a buffer for one batch, in numpy", BATCH_BYTES, Per.ONCE, ("baseline", "construct", _HOST)),
    _plant(_C, "only_large_scans", "the same on the device, from 2,000 images on", BATCH_BYTES, Per.ONCE, ("budget", "construct", _DEVICE)),
    _plant(
        _C, "only_large_scans_on_the_host", "the same in numpy, from 2,000 images on",
        BATCH_BYTES, Per.ONCE, ("baseline", "construct", _HOST),
    ),
    _plant(_C, "only_small_scans", "scans of up to 100 images are kept, in numpy", 100 * IMAGE_BYTES, Per.ONCE, ("baseline", "construct", _HOST)),
    _plant(_C, "tensor_of_the_module", "a constant of a module, on the device", BATCH_BYTES, Per.ONCE, ("budget", "open", _DEVICE)),
    # --- for each frame of the stack ---
    _plant(_C, "stack_on_the_device", "all frames of the scan as a tensor", FRAME_BYTES, Per.FRAME, ("slope", "open", _DEVICE)),
    _plant(_C, "stack_read_whole", "np.load instead of a memory map", FRAME_BYTES, Per.FRAME, ("slope", "open", _HOST)),
    _plant(_C, "stack_as_halves", "all frames of the scan as float16", FRAME_BYTES // 2, Per.FRAME, ("slope", "open", _HOST)),
    _plant(_C, "private_mapping_kept", "the file mapped copy-on-write and scaled in place", FRAME_BYTES, Per.FRAME, ("slope", "open", _HOST)),
    _plant(_C, "positions_kept_often", "sixteen more copies of x and y", 256, Per.FRAME, ("slope", "open", _HOST)),
    # --- in the batches ---
    _plant(_S, "dataset_cached", "dataset.cache()", IMAGE_BYTES, Per.IMAGE, ("slope", "epoch_0", _DEVICE)),
    _plant(_S, "prefetch_by_one", "dataset.prefetch(1)", BATCH_BYTES, Per.ONCE, ("baseline", "epoch_0", _DEVICE), first_in="first_batch"),
    _plant(_S, "prefetch_deeper", "dataset.prefetch(4)", BATCH_BYTES, Per.ONCE, ("baseline", "epoch_0", _DEVICE), first_in="first_batch"),
    _plant(_S, "prefetch_of_everything", "dataset.prefetch(number of batches)", BATCH_BYTES, Per.ONCE, ("baseline", "epoch_0", _DEVICE), first_in="first_batch"),
    _plant(_S, "shuffle_of_everything", "dataset.shuffle(number of batches)", IMAGE_BYTES, Per.IMAGE, ("slope", "epoch_0", _DEVICE), first_in="first_batch"),
    _plant(_S, "slices_of_a_tensor", "from_tensor_slices of everything", IMAGE_BYTES, Per.IMAGE, ("slope", "first_batch", _DEVICE)),
    _plant(_S, "constant_of_a_graph", "a traced function closes over an array", IMAGE_BYTES, Per.IMAGE, ("slope", "first_batch", _HOST)),
    _plant(_S, "double_copy", "every batch is copied once more", BATCH_BYTES, Per.ONCE, ("baseline", "epoch_0", _DEVICE), first_in="first_batch"),
    _plant(_S, "complex_batches", "complex64 where float32 was", 2 * BATCH_BYTES, Per.ONCE, ("baseline", "epoch_0", _DEVICE), first_in="first_batch"),
    _plant(_S, "batches_kept", "a list of all batches", IMAGE_BYTES, Per.IMAGE, ("slope", "epoch_0", _DEVICE), first_in="first_batch"),
    _plant(_S, "batches_copied_to_the_host", "a list of copies in numpy", IMAGE_BYTES, Per.IMAGE, ("slope", "epoch_0", _HOST), first_in="first_batch"),
    _plant(_S, "second_epoch_kept", "from the second epoch on, a list of all batches", IMAGE_BYTES, Per.IMAGE, ("leak", "epoch_1", _DEVICE)),
    _plant(
        _S, "second_epoch_on_the_host", "from the second epoch on, 1,024 B of notes for each image",
        BAR_BYTES_PER_IMAGE, Per.IMAGE, ("slope", "epoch_1", _HOST),
    ),
    _plant(_S, "first_batch_copied", "the first batch is kept, on the device", BATCH_BYTES, Per.ONCE, ("budget", "release", _DEVICE), first_in="first_batch"),
    _plant(_S, "first_batch_on_the_host", "the first batch is kept, in numpy", BATCH_BYTES, Per.ONCE, ("baseline", "first_batch", _HOST)),
    _plant(_S, "last_batch_padded", "the last, partial batch is padded in a copy of twice a batch", 2 * BATCH_BYTES, Per.ONCE, ("baseline", "epoch_0", _DEVICE)),
    _plant(_S, "notes_for_each_image", "1,024 B of notes whenever an image is fed", BAR_BYTES_PER_IMAGE, Per.IMAGE, ("slope", "epoch_0", _HOST)),
    _plant(_S, "scratch_of_every_step", "64 KiB of scratch kept for each step", BAR_BYTES_PER_IMAGE, Per.IMAGE, ("slope", "epoch_0", _HOST)),
    _plant(_S, "reordered_every_epoch", "a copy of all images in the order of the epoch", IMAGE_BYTES, Per.IMAGE, ("slope", "epoch_0", _HOST), first_in="first_batch"),
    _plant(_S, "aliased_batches", "batches in memory that the allocator does not count", BATCH_BYTES, Per.ONCE, ("floor", "epoch_0", _DEVICE)),
    _plant(_S, "alias_kept_for_each_batch", "each batch kept as a tensor over numpy memory", IMAGE_BYTES, Per.IMAGE, ("slope", "epoch_0", _HOST), first_in="first_batch"),
    _plant(_S, "lent_memory_never_back", "memory of batches is never lent again", IMAGE_BYTES, Per.IMAGE, ("slope", "epoch_0", _DEVICE), first_in="first_batch"),
    _plant(_S, "container_in_a_registry", "the container and its last batch stay in a registry", BATCH_BYTES, Per.ONCE, ("budget", "release", _DEVICE), first_in="first_batch"),
    _plant(_S, "copy_when_released", "the container copies itself when it goes", IMAGE_BYTES, Per.IMAGE, ("slope", "release", _HOST)),
    _plant(_S, "batch_of_an_epoch_on_the_host", "each epoch keeps a batch, in numpy", BATCH_BYTES, Per.EPOCH, ("leak", "epoch_1", _HOST), first_in="first_batch"),
    _plant(_S, "lookup_table", "64 entries of a table for each image", BAR_BYTES_PER_IMAGE, Per.IMAGE, ("slope", "first_batch")),
    _plant(_S, "scratch_of_threads", "two waiting threads with a batch of scratch each", 2 * BATCH_BYTES, Per.ONCE, ("baseline", "first_batch", _HOST)),
    # --- the eager container, arrays in memory, a network ---
    _plant(_E, "eager_truth_twice", "Y once more, under another name", 2 * IMAGE_BYTES, Per.IMAGE, ("arithmetic", "construct", _DEVICE), EAGER),
    _plant(_E, "eager_images_aliased", "X over memory that the allocator does not count", IMAGE_BYTES, Per.IMAGE, ("arithmetic", "construct", _DEVICE), EAGER),
    _plant(_E, "eager_temporary", "Y through one more temporary of its size", 2 * IMAGE_BYTES, Per.IMAGE, ("slope", "construct", _DEVICE), EAGER),
    _plant(_E, "eager_array_kept", "the arrays stay in numpy beside the tensors", IMAGE_BYTES, Per.IMAGE, ("slope", "construct", _HOST), EAGER),
    _plant(_E, "eager_dataset_copies", "the dataset is made of a copy of X", IMAGE_BYTES, Per.IMAGE, ("slope", "first_batch", _DEVICE), EAGER),
    _plant(_E, "arrays_copied", "images are copied where they were referred to", IMAGE_BYTES, Per.IMAGE, ("slope", "construct", _HOST), ARRAYS),
    _plant(_E, "arrays_converted", "images are made float64, and back", 3 * IMAGE_BYTES, Per.IMAGE, ("slope", "construct", _HOST), ARRAYS),
    _plant(_E, "targets_at_once", "datasets with targets hold all ground truth", _SMALL_IMAGE_BYTES, Per.IMAGE, ("slope", "", _DEVICE), TRAINING),
    _plant(_E, "predictions_kept", "every prediction stays on the device", 8 * _SMALL_IMAGE_BYTES, Per.IMAGE, ("slope", "predict_0", _DEVICE), INFERENCE),
    _plant(_E, "canvas_for_each_group", "every prediction is kept in numpy", 8 * _SMALL_IMAGE_BYTES, Per.IMAGE, ("slope", "predict_1", _HOST), INFERENCE, first_in="stitch"),
    _plant(_E, "probe_for_each_group", "the probe, repeated for every group", 2 * FRAME_BYTES, Per.IMAGE, ("slope", "construct", _DEVICE)),
    # --- below the limits of a single phase's growth ---
    _plant(_F, "cache_shared_by_two_phases", "a cache of a batch, in numpy, that two phases fill", BATCH_BYTES, Per.ONCE, ("baseline", "release", _HOST)),
    _plant(_F, "a_little_in_each_phase", "a little is kept in every phase, in numpy", 6 * MIB, Per.ONCE, ("baseline", "release", _HOST)),
    _plant(_F, "file_read_through_the_map", "the pass over the frames maps the whole file", FRAME_BYTES, Per.FRAME, ("budget", "construct", HOST_RSS)),
    _plant(_F, "cache_of_chunks", "the last 64 unpacked chunks of an HDF5 file are kept", 4 * MIB, Per.ONCE, ("baseline", "release", _HOST), HDF5, first_in="epoch_defaults"),
    _plant(_F, "table_of_frames", "a record of each frame of an HDF5 file, made by the first batch", 366, Per.FRAME, ("slope", "release", _HOST), HDF5, first_in="epoch_defaults"),
    _plant(_F, "notes_with_targets", "notes of each image that is fed with its truth", RECORD_BYTES, Per.IMAGE, ("slope", "release", _HOST), RAW_DATA, first_in="epoch_targets"),
    _plant(_F, "notes_of_a_training", "the same in every epoch of a training", RECORD_BYTES, Per.IMAGE, ("slope", "release", _HOST), TRAINING),
    _plant(
        _F, "records_of_single_frames", "a record for each group of a single frame",
        SINGLE_RECORD_BYTES, Per.IMAGE, ("slope", "construct", _HOST), TRAINING,
    ),
    _plant(_F, "truth_of_all_images", "datasets with targets hold all ground truth, in numpy", _SMALL_IMAGE_BYTES, Per.IMAGE, ("slope", "release", _HOST), TRAINING),
    _plant(_F, "canvas_on_the_device", "a reconstruction has a canvas on the device, too", 24 * 64 * 1024, Per.ONCE, ("baseline", "stitch", _DEVICE), INFERENCE),
    _plant(_F, "transforms_padded", "far fields are transformed on 64 times as many pixels", 4 * MIB, Per.ONCE, ("baseline", "forward", _DEVICE), TRAINING),
    _plant(_F, "strong_reference", "what TensorFlow keeps of a dataset holds its source", 1 * MIB, Per.ROUND, ("slope", "complete", _HOST), LIFETIMES, first_in="first"),
    _plant(_F, "strong_reference_to_arrays", "the same, where the source is arrays", IMAGE_BYTES, Per.IMAGE, ("slope", "release", _HOST), ARRAYS),
    _plant(_F, "note_of_every_dataset", "each dataset leaves 64 KiB behind", 2 * 64 * 1024, Per.ROUND, ("slope", "complete", _HOST), LIFETIMES),
    _plant(_F, "batch_of_an_iterator_left", "an iterator that is left half-way leaves a batch", 1 * MIB, Per.ROUND, ("slope", "dropped", _DEVICE), LIFETIMES, first_in="first"),
    # --- ways of their own: formats, old code, other settings ---
    _plant(_W, "converted_frames_kept", "each frame that was converted is kept", FRAME_BYTES, Per.FRAME, ("slope", "counts", _HOST), FORMATS),
    _plant(_W, "mask_for_each_frame", "the mask, repeated for every frame", FRAME_BYTES // 4, Per.FRAME, ("slope", "counts", _HOST), FORMATS),
    _plant(_W, "notes_of_converted_frames", "256 B of notes for a frame that is converted", BAR_BYTES_PER_FRAME, Per.FRAME, ("slope", "counts", _HOST), FORMATS),
    _plant(_W, "converted_at_once", "the pass over the frames converts all of them first", FRAME_BYTES, Per.FRAME, ("slope", "counts", _HOST), FORMATS),
    _plant(_W, "chunks_read_whole", "a CXI file is read whole by the first batch", FRAME_BYTES, Per.FRAME, ("slope", "cxi", _HOST), FORMATS),
    _plant(_W, "member_unpacked_whole", "a compressed member is unpacked in memory", FRAME_BYTES, Per.FRAME, ("slope", "compressed", _HOST), FORMATS),
    _plant(_W, "object_in_memory", "an object that cannot be mapped is held", 1458504, Per.ONCE, ("baseline", "compressed", _HOST), FORMATS),
    _plant(_W, "repacked_through_a_list", "scattered frames are read into a list", 2 * FRAME_BYTES, Per.FRAME, ("slope", "repacked", _HOST), FORMATS),
    _plant(_W, "array_in_this_byte_order", "big-endian frames are read into an array", 2 * FRAME_BYTES, Per.FRAME, ("slope", "tables", _HOST), FORMATS),
    _plant(_W, "energies_in_double", "energies of arrays are found in float64", 2 * IMAGE_BYTES, Per.IMAGE, ("slope", "grouped", _HOST), SCRIPTS),
    _plant(_W, "parts_at_once", "amplitude and phase of all complex images", 2 * IMAGE_BYTES, Per.IMAGE, ("slope", "grouped", _HOST), SCRIPTS),
    _plant(_W, "normalized_in_double", "images are normalized in float64", 2 * IMAGE_BYTES, Per.IMAGE, ("slope", "normalized", _HOST), SCRIPTS),
    _plant(_W, "written_at_once", "each stack is read whole before it is written", IMAGE_BYTES, Per.IMAGE, ("slope", "saved", _HOST), SCRIPTS),
    _plant(_W, "opened_by_copying", "a container's file is read into arrays", 3 * IMAGE_BYTES, Per.IMAGE, ("slope", "saved", _HOST), SCRIPTS),
    _plant(_W, "tensors_held", "X, Y_I and Y_phi stay once they were asked for", 2 * IMAGE_BYTES, Per.IMAGE, ("slope", "images", _DEVICE), SCRIPTS),
    _plant(_W, "assigned_by_copying", "arrays that are assigned are copied", 3 * IMAGE_BYTES, Per.IMAGE, ("slope", "assigned", _HOST), SCRIPTS),
    _plant(_W, "truth_in_double", "Y through complex128", 6 * IMAGE_BYTES, Per.IMAGE, ("slope", "truth", _DEVICE), SCRIPTS),
    _plant(_W, "orders_of_all_epochs", "the order of every epoch is remembered, 96 of them", 96 * 8, Per.FRAME, ("slope", "epochs_of_chunks", _HOST), SETTINGS),
    _plant(_W, "cached_epochs", "dataset.cache() behind repeat", 2 * IMAGE_BYTES, Per.IMAGE, ("slope", "repeated", _DEVICE), SETTINGS, first_in="epochs_of_chunks"),
    _plant(_W, "images_of_a_worker", "each worker has a copy of all images", 2 * IMAGE_BYTES, Per.IMAGE, ("slope", "sharded", _HOST), SETTINGS),
    _plant(_W, "ones_for_all_images", "ones and zeros where there is no ground truth", 2 * IMAGE_BYTES, Per.IMAGE, ("slope", "without_truth", _HOST), SETTINGS),
    _plant(_W, "table_of_more_groups", "64 KiB for each group in the order of the frames", IMAGE_BYTES, Per.IMAGE, ("slope", "oversampled", _HOST), SETTINGS),
    _plant(_W, "records_of_one_channel", "1,024 B for each image of one channel", BAR_BYTES_PER_IMAGE, Per.IMAGE, ("slope", "singles", _HOST), SETTINGS),
    _plant(_W, "images_of_nine_frames", "groups of nine are gathered at once", 9 * FRAME_BYTES, Per.IMAGE, ("slope", "nines", _HOST), SETTINGS),
    # --- below the bar: reported, not promised ---
    _plant(_F, "little_of_every_epoch", "each epoch keeps 900 KiB, in numpy", 900 * 1024, Per.EPOCH, ("leak", "epoch_1", _HOST)),
    _plant(_C, "coordinates_at_the_limit", "eight copies of the coordinates, float64, on the device", 512, Per.IMAGE, ("baseline", "construct", _DEVICE)),
    _plant(_C, "half_a_coordinate", "one more copy of the coordinates, float32, on the device", 32, Per.IMAGE, None),
    _plant(_C, "tenth_of_a_batch", "a table of a tenth of a batch, on the device", BATCH_BYTES // 10, Per.ONCE, ("baseline", "construct", _DEVICE)),
    _plant(_C, "tenth_of_a_batch_on_the_host", "the same in numpy", BATCH_BYTES // 10, Per.ONCE, None),
    _plant(_S, "leak_of_an_epoch", "each epoch keeps 64 KiB and a byte of the device", 64 * 1024 + 1, Per.EPOCH, ("leak", "epoch_1", _DEVICE), first_in="first_batch"),
    _plant(_S, "traced_for_each_batch", "a function traced anew for every batch", 512, Per.IMAGE, ("slope", "epoch_0", _HOST)),
    _plant(
        _E, "eager_frugal", "Y with less beside it", -2 * IMAGE_BYTES, Per.IMAGE, ("baseline", "construct", _DEVICE), EAGER,
        is_regression=False,
    ),
    # --- outside: memory that no meter of the child reads ---
    _plant(_C, "copy_in_a_mapped_file", "all images in a temporary file, mapped", IMAGE_BYTES, Per.IMAGE, None, is_outside=True),
    _plant(_C, "copy_in_a_memory_file", "all images in a file in memory that nobody maps", IMAGE_BYTES, Per.IMAGE, None, is_outside=True),
    _plant(_C, "array_of_the_module", "a table of a module, in numpy, before the first phase", 16 * BATCH_BYTES, Per.ONCE, None, is_outside=True),
)  # fmt: skip

_G = "card"

CARD_PLANTS = (
    _plant(_G, "prefetched_to_the_card", "prefetch_to_device with a buffer of 4", BATCH_BYTES, Per.ONCE, ("baseline", "first_batch", _DEVICE)),
    _plant(_G, "slices_on_the_card", "from_tensor_slices of everything, on the card", IMAGE_BYTES, Per.IMAGE, ("slope", "first_batch", _DEVICE)),
    _plant(_G, "batch_of_an_epoch_on_the_card", "each epoch keeps its first batch, on the card", BATCH_BYTES, Per.EPOCH, ("leak", "epoch_1", _DEVICE)),
    _plant(_G, "batches_stay_on_the_host", "no batch is taken to the card", BATCH_BYTES, Per.ONCE, ("floor", "epoch_0", _DEVICE)),
)  # fmt: skip
"""What only a card can show, beside ``PLANTS``: on the emulated device all of it is host memory."""


def plant_named(name: str) -> Plant:
    """The plant of that name; KeyError where there is none."""
    return {plant.name: plant for plant in (*PLANTS, *CARD_PLANTS)}[name]


def planted(point: Point, plant: Plant) -> Point:
    """The point with the bug in it: the same in all that a baseline and a policy know of."""
    environment = {**point.environment, PLANT_VARIABLE: plant.name, BODY_VARIABLE: point.body}
    return dataclasses.replace(
        point, body="scenarios.detector.body:measure", environment=environment
    )
