"""Containers of grouped images for TensorFlow: eager, lazy, and ``load`` for PtychoPINN's callbacks."""

from ptycho.compat import load
from ptycho.containers.eager import PtychoDataContainer
from ptycho.containers.lazy import LazyPtychoDataContainer

__all__ = ["LazyPtychoDataContainer", "PtychoDataContainer", "load"]
