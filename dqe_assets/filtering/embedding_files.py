"""Files of embeddings or centroids: NumPy's, and those that torch.save writes, without running what is in them."""

from __future__ import annotations

import pickle
import zipfile
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from dqe_assets.filtering.filters.protocol import FilterError
from dqe_resources.cache import in_data_directory
from dqe_resources.errors import one_line

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

_TORCH = (".pt", ".pth")


def read_embeddings(name: str, *arrays: str) -> NDArray[np.float32]:
    """The embeddings of a file.

    Args:
        name: path, from the data folder: .npy; .npz, or .pt or .pth of a dict, which has one of ``arrays``; or .pt or
            .pth of a tensor or of a NumPy array, as DataComp's centroids are.
        arrays: names of the array, the first that is there is taken.

    Returns:
        float32 [m, d].

    Raises:
        FilterError: it cannot be read so, or is something else, or has numbers that are not finite.
    """
    path = in_data_directory(name)
    named = " or ".join(arrays)
    try:
        loaded = _load_torch(path) if path.suffix in _TORCH else np.load(path, allow_pickle=False)
        if isinstance(loaded, dict | np.lib.npyio.NpzFile):
            loaded = next(loaded[array] for array in arrays if array in loaded)
        found = np.asarray(loaded)
    except Exception as error:  # a torn or hostile file raises anything
        known = ".pt of a tensor, an array or a dict" if path.suffix in _TORCH else ".npy, or .npz"
        said = one_line(error)[:200]
        raise FilterError(f"{path}: cannot be read as {known} with the array {named} ({said})") from error
    if found.ndim != 2 or not len(found) or found.dtype.kind != "f" or not np.isfinite(found).all():
        raise FilterError(f"{path}: {found.dtype} {list(found.shape)}; expected finite numbers [m, d]")
    return found.astype(np.float32)


def _load_torch(path: Path) -> Any:
    """What torch.save wrote: a NumPy array, or what torch loads with ``weights_only``.

    DataComp saved NumPy arrays with pickle's protocol 4, which torch reads only where it may run any code.
    """
    import torch

    with zipfile.ZipFile(path) as archive:
        content = next(member for member in archive.infolist() if member.filename.endswith("/data.pkl"))
        if content.compress_type != zipfile.ZIP_STORED:
            raise ValueError("it is compressed, and torch.save compresses nothing")
        with archive.open(content) as stream:
            try:
                return _ArrayUnpickler(stream).load()
            except _OtherError:
                pass
    loaded = torch.load(path, map_location="cpu", weights_only=True)
    return {key: _as_array(value) for key, value in loaded.items()} if isinstance(loaded, dict) else _as_array(loaded)


def _as_array(value: Any) -> Any:
    import torch

    # NumPy has no bfloat16.
    return value.float().numpy() if isinstance(value, torch.Tensor) and value.is_floating_point() else value


class _OtherError(pickle.UnpicklingError):
    """The file has something else than NumPy arrays."""


def _empty_array(*_: object) -> NDArray[np.generic]:
    """What an array is before it is given its type, shape and numbers, which must fill that shape."""
    return np.empty(0)


class _ArrayUnpickler(pickle.Unpickler):
    """Reads NumPy arrays, and calls nothing but what makes them."""

    _known: ClassVar[dict[tuple[str, str], Any]] = {
        ("numpy", "ndarray"): "ndarray",
        ("numpy", "dtype"): np.dtype,
        ("numpy.core.multiarray", "_reconstruct"): _empty_array,
        ("numpy._core.multiarray", "_reconstruct"): _empty_array,
        ("_codecs", "encode"): lambda text, _: text.encode("latin-1"),
    }

    def find_class(self, module: str, name: str) -> Any:
        """What a name stands for; another name is an error."""
        if (module, name) not in self._known:
            raise _OtherError(f"it has {module}.{name}")
        return self._known[module, name]

    def persistent_load(self, _: Any) -> Any:
        """A tensor's numbers, which lie in other members: an error."""
        raise _OtherError("it has a tensor")
