"""Features from exported files. Needs NumPy and onnxruntime, not PyTorch."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime


class OnnxReIDModel:
    """The model in a folder that ``tools/export.py`` wrote.

    Args:
        folder: holds ``encoder.onnx`` and, for a model that generates features, ``denoiser.onnx``,
            ``fusion.onnx`` and ``sampling.npz``.
        providers: onnxruntime's execution providers; by default the CPU's.
        threads: of the CPU; 0 leaves their number to onnxruntime.
    """

    def __init__(
        self, folder: str | Path, providers: Sequence[str] = ("CPUExecutionProvider",), threads: int = 0
    ) -> None:
        folder = Path(folder)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads

        def session(name: str) -> onnxruntime.InferenceSession:
            return onnxruntime.InferenceSession(folder / f"{name}.onnx", options, providers=list(providers))

        self.encoder = session("encoder")
        self.labels = [value.name for value in self.encoder.get_inputs()][1:]
        self.generates = (folder / "sampling.npz").exists()
        if self.generates:
            self.denoiser = session("denoiser")
            self.fusion = session("fusion")
            with np.load(folder / "sampling.npz") as plan:
                self.plan = dict(plan)

    def extract(
        self, images: np.ndarray, noise: np.ndarray | None = None, **labels: np.ndarray
    ) -> np.ndarray:
        """Compute retrieval features.

        Args:
            images: (B, 3, H, W) uint8 RGB of the exported size.
            noise: (R, B, V, 4, h, w) float32 standard normal, for a model that generates features and whose
                images have noise of their own; else it is in the folder.
            labels: ``camids`` or ``viewids`` (B,), numbers, for a model that reads them.

        Returns:
            (B, D) float32.

        Raises:
            ValueError: if noise or labels are needed and not given, or labels are not read.
        """
        if set(labels) != set(self.labels):
            wanted = ", ".join(self.labels) or "no labels"
            raise ValueError(f"this model reads {wanted} beside images, given: {', '.join(labels) or 'none'}")
        read = {name: np.asarray(values, np.int64) for name, values in labels.items()}
        encoded = self.encoder.run(None, {"images": images, **read})
        if not self.generates:
            return encoded[0]
        feature, id_tokens = encoded
        if noise is None and "noise" not in self.plan:
            raise ValueError("this model has noise for each image: give `noise`")
        if noise is None:
            noise = np.repeat(self.plan["noise"][:, None], len(images), axis=1)
        latents = self._sample(id_tokens, noise)
        return self.fusion.run(None, {"feature": feature, "latents": latents, **read})[0]

    def _sample(self, id_tokens: np.ndarray, noise: np.ndarray) -> np.ndarray:
        """Sample latents (B, V, 4, h, w) of B images in V views."""
        batch, views = noise.shape[1:3]
        conditions = {
            "id_tokens": np.repeat(id_tokens, views, axis=0),
            "views": np.tile(np.arange(views), batch),
        }
        known = list(noise.reshape(len(noise), batch * views, *noise.shape[3:]))
        for timestep, weights in zip(self.plan["timesteps"], self.plan["inputs"], strict=True):
            latents = np.tensordot(weights[: len(known)], known, axes=1)
            inputs = {"latents": latents, "timestep": np.array(timestep), **conditions}
            known.append(self.denoiser.run(None, inputs)[0])
        return np.tensordot(self.plan["final"], known, axes=1).reshape(noise.shape[1:])
