"""all-MiniLM-L6-v2 in process: 384 numbers for a text, from a model folder, without torch.

A fresh machine has something real to run: the weights file is read as it was published, by a
forward pass in NumPy or, where `onnxruntime` and `onnx` are installed, by a graph built from the
same weights. `k9 model fetch minilm` gets the folder.

NumPy's matrix library starts one thread per core unless told otherwise before NumPy is first
imported; beside other processes those threads spend their time waiting for each other. Whoever
starts a worker that serves this model merges `BLAS_ENVIRONMENT` into its environment.
"""

from __future__ import annotations

from typing import Final

MODEL_NAME: Final = "all-minilm-l6-v2"
"""The name callers use."""

DIMENSIONS: Final = 384
"""Numbers in one vector."""

BLAS_ENVIRONMENT: Final = {
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "VECLIB_MAXIMUM_THREADS": "1",
}
"""Environment of a worker process: one thread for NumPy's matrix library, whichever it is."""

GET_AGAIN: Final = "Get the model again: `k9 model fetch minilm`."
"""The next step when a file of the folder is damaged."""
