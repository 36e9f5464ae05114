"""A child: ``python -m tests.ptycho.card.training SCAN``; a network trained and used with both
loaders, wherever it runs.
"""

import sys

import keras
import numpy as np

from ptycho.loader import LazyPtychoDataContainer, PtychoDataContainer
from ptycho.model import build_model, compile_model
from ptycho.reconstruct import reconstruct
from ptycho.scan import Scan
from tests.ptycho.card.meters import cap_cards, device_of, report


def trained(kind, scan):
    keras.utils.set_random_seed(0)
    container = kind.from_scan(scan, image_count=32, gridsize=2, seed=0)
    model = compile_model(build_model(scan.frame_size, 2, container.probe))
    dataset = container.as_dataset(8, shuffle=True, seed=0, prefetch=0, targets=True)
    losses = model.fit(dataset, epochs=2, shuffle=False, verbose=0).history["loss"]
    found = reconstruct(model, container, 8, progress=False)
    return {
        "weights on": sorted({device_of(weight.value) for weight in model.weights}),
        "losses": losses,
        "amplitude": float(np.abs(found.object).sum()),
        "weights": float(found.weights.sum()),
    }


if __name__ == "__main__":
    cap_cards()
    scan = Scan.open(sys.argv[1])
    kinds = {"lazy": LazyPtychoDataContainer, "eager": PtychoDataContainer}
    report({name: trained(kind, scan) for name, kind in kinds.items()})
