"""Containers of grouped images for TensorFlow: eager, lazy, and what PtychoPINN's module of this
name has.
"""

from ptycho.compat import (
    PtychoDataset,
    compute_dataset_intensity_stats,
    load,
    normalize_data,
    split_data,
    split_tensor,
)
from ptycho.containers.eager import PtychoDataContainer
from ptycho.containers.lazy import LazyPtychoDataContainer
from ptycho.raw_data import RawData, key_coords_offsets, key_coords_relative

__all__ = [
    "LazyPtychoDataContainer",
    "PtychoDataContainer",
    "PtychoDataset",
    "RawData",
    "compute_dataset_intensity_stats",
    "key_coords_offsets",
    "key_coords_relative",
    "load",
    "normalize_data",
    "split_data",
    "split_tensor",
]
