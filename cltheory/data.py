"""Images to learn from: digits that ship with scikit-learn, MNIST and CIFAR-10 with checksums.

References
----------
.. [1] LeCun, Y., Bottou, L., Bengio, Y., & Haffner, P. (1998). Gradient-based learning applied to
   document recognition. Proceedings of the IEEE 86(11).
.. [2] Krizhevsky, A. (2009). Learning multiple layers of features from tiny images. Technical
   report, University of Toronto.
"""

import gzip
import hashlib
import os
import tarfile
import zlib
from pathlib import Path
from typing import IO, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from sklearn.datasets import load_digits
from torch import Tensor

from cltheory import _validate


class LabelledImages(NamedTuple):
    """Images with pixels in [0, 1], grey or of several channels, and the class of each.

    Examples
    --------
    >>> images, labels = digits()
    >>> images.shape, labels.unique()
    (torch.Size([1797, 8, 8]), tensor([0, 1, 2, 3, 4, 5, 6, 7, 8, 9]))
    """

    images: Float[Tensor, "n *channels height width"]
    labels: Int[Tensor, " n"]


class Patches(NamedTuple):
    """Patches of zeros and ones in images: how often each image shows each pattern, and where.

    Examples
    --------
    >>> counts, patterns, states = digit_patches(size=2)
    >>> patterns.shape  # every pattern of four pixels
    torch.Size([16, 2, 2])
    """

    counts: Float[Tensor, "n states"]
    patterns: Float[Tensor, "states size size"]
    states: Int[Tensor, "n rows columns"]


class _File(NamedTuple):
    """One file of MNIST: the checksum of its bytes, and of the archive that is downloaded."""

    name: str
    sha256: str
    archive_md5: str


LARGEST = 200 * 2**20
"""Bytes of a file, packed or not, at most; the archive of CIFAR-10, the largest, has 163 MiB."""
CIFAR10_URL = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
CIFAR10_MD5 = "c32a1d4ab5d03f1284b67883e8d87530"
CIFAR10_FILES = {
    "train": tuple(f"data_batch_{k}.bin" for k in range(1, 6)),
    "test": ("test_batch.bin",),
}
MNIST_URL = "https://ossci-datasets.s3.amazonaws.com/mnist/"
MNIST_FILES = {
    "train": (
        _File(
            "train-images-idx3-ubyte",
            "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
            "f68b3c2dcbeaaa9fbdd348bbdeb94873",
        ),
        _File(
            "train-labels-idx1-ubyte",
            "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
            "d53e105ee54ea40749a09fcbcd1e9432",
        ),
    ),
    "test": (
        _File(
            "t10k-images-idx3-ubyte",
            "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
            "9fb629c4189551a2d022fa330f9573f3",
        ),
        _File(
            "t10k-labels-idx1-ubyte",
            "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
            "ec29112dd5afa0611ce80d1b7f02629c",
        ),
    ),
}

_INSTEAD = "copy it there, or call {}() without a folder to download it"


def digits(
    *, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
) -> LabelledImages:
    """Return the 1,797 handwritten digits of 8 x 8 pixels that ship with scikit-learn.

    Nothing is downloaded. Images have shape (1797, 8, 8) and pixels in [0, 1] (steps of 1/16);
    labels are int64.

    Examples
    --------
    >>> images, labels = digits()
    >>> images.shape, images.max(), labels[:3]
    (torch.Size([1797, 8, 8]), tensor(1.), tensor([0, 1, 2]))
    """
    bunch = load_digits()
    return _labelled(bunch.images / 16, bunch.target, dtype, device)


def digit_patches(
    *,
    size: int = 3,
    threshold: float = 0.5,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str = "cpu",
) -> Patches:
    r"""Count the binary patches of each digit: a finite augmentation model of real images.

    Every digit of :func:`digits` shows :math:`(9 - \text{size})^2` patches, one at each position.
    Pixels above the threshold are 1, the others 0, and the states are the patterns that occur (at
    most :math:`2^{\text{size}^2}`), by their pixels read as a binary number, row by row; the third
    result is the state at each position.

    Two patches drawn independently from one digit are a positive pair. Its channel,
    p(pattern | digit), is ``counts / counts.sum(1, keepdim=True)``.

    Raises
    ------
    ValueError
        If `size` is not between 1 and 4, or `threshold` not in [0, 1).

    Examples
    --------
    >>> counts, patterns, states = digit_patches(size=2)
    >>> counts.shape, counts.sum(1).unique()
    (torch.Size([1797, 16]), tensor([49.], dtype=torch.float64))
    >>> patterns[1]
    tensor([[0., 0.],
            [0., 1.]], dtype=torch.float64)
    >>> states.shape
    torch.Size([1797, 7, 7])
    """
    _validate.integer(size, "size", 1, 4)
    if not 0 <= threshold < 1:
        raise ValueError(f"threshold must be in [0, 1), got {threshold}")
    pixels = digits().images > threshold
    patches = pixels.unfold(1, size, 1).unfold(2, size, 1).flatten(3).flatten(1, 2)
    place = torch.arange(size**2 - 1, -1, -1, device="cpu")
    present, state = torch.unique((patches.long() << place).sum(2), return_inverse=True)
    counts = torch.zeros(len(state), len(present), dtype=dtype, device="cpu")
    counts.scatter_add_(1, state, torch.ones_like(state, dtype=dtype))
    patterns = (present[:, None] >> place & 1).reshape(-1, size, size)
    states = state.reshape(-1, 9 - size, 9 - size)
    return Patches(counts.to(device), patterns.to(device, dtype), states.to(device))


def mnist(
    root: str | os.PathLike[str] | None = None,
    *,
    split: Literal["train", "test"] = "train",
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> LabelledImages:
    """Return MNIST [1]_: 60,000 images to train on, or 10,000 to test with.

    Images have shape (n, 28, 28) and pixels in [0, 1] (steps of 1/255); labels are int64.

    Parameters
    ----------
    root
        The folder with the standard idx files, such as ``train-images-idx3-ubyte``, plain or with
        ``.gz``. Unless given, they are downloaded once, into the user's cache.
    split
        ``"train"`` or ``"test"``.
    dtype, device
        Of the images; the labels are on the same device.

    Raises
    ------
    FileNotFoundError
        If a file is not in `root`.
    ValueError
        If a file is truncated, corrupt or another one, by its checksum; if the split is unknown.
    OSError
        If a download fails. Nothing of it is kept.

    Examples
    --------
    >>> mnist("no/such/folder")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    FileNotFoundError: no train-images-idx3-ubyte or ...gz in no/such/folder; copy it there, ...
    """
    if split not in MNIST_FILES:
        raise ValueError(f"split must be 'train' or 'test', got {split!r}")
    images, labels = (
        _read_idx(_download(file) if root is None else _find(Path(root), file), file.sha256)
        for file in MNIST_FILES[split]
    )
    scaled = _labelled(images, labels, dtype, device)
    scaled.images.div_(255)
    return scaled


def cifar10(
    root: str | os.PathLike[str] | None = None,
    *,
    split: Literal["train", "test"] = "train",
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> LabelledImages:
    """Return CIFAR-10 [2]_: up to 50,000 colour images to train on, or 10,000 to test with.

    Images have shape (n, 3, 32, 32), red, green, blue, and pixels in [0, 1] (steps of 1/255);
    labels are int64.

    Parameters
    ----------
    root
        The folder with files of the binary version, ``data_batch_1.bin`` to ``data_batch_5.bin``
        and ``test_batch.bin``, plain or with ``.gz``; those that are there are read. Unless given,
        the archive is downloaded once, into the user's cache, and checked.
    split
        ``"train"`` or ``"test"``.
    dtype, device
        Of the images; the labels are on the same device.

    Raises
    ------
    FileNotFoundError
        If no file of the split is in `root`.
    ValueError
        If a file is truncated, corrupt, or no file of CIFAR-10 by its size and labels; if the split
        is unknown.
    OSError
        If a download fails. Nothing of it is kept.

    Examples
    --------
    >>> cifar10("no/such/folder", split="test")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    FileNotFoundError: no test_batch.bin or test_batch.bin.gz in no/such/folder; copy it ...
    """
    if split not in CIFAR10_FILES:
        raise ValueError(f"split must be 'train' or 'test', got {split!r}")
    names = CIFAR10_FILES[split]
    found = _unpacked_cifar10(names) if root is None else _found_cifar10(Path(root), names)
    table = np.concatenate([_rows_of_cifar10(raw, where) for where, raw in sorted(found.items())])
    scaled = _labelled(table[:, 1:].reshape(-1, 3, 32, 32), table[:, 0], dtype, device)
    scaled.images.div_(255)
    return scaled


def _labelled(
    images: np.ndarray, labels: np.ndarray, dtype: torch.dtype, device: torch.device | str
) -> LabelledImages:
    return LabelledImages(
        torch.from_numpy(images).to(device, dtype), torch.from_numpy(labels).to(device, torch.int64)
    )


def _find(root: Path, file: _File) -> Path:
    for path in (root / file.name, root / f"{file.name}.gz"):
        if path.is_file():
            return path
    raise FileNotFoundError(
        f"no {file.name} or {file.name}.gz in {root}; {_INSTEAD.format('mnist')}"
    )


def _download(file: _File) -> Path:
    return _retrieved(f"{MNIST_URL}{file.name}.gz", file.archive_md5, "mnist")


def _retrieved(url: str, md5: str, loader: str) -> Path:
    """Download a file once, into the user's cache."""
    import pooch  # here, because it warns on import where there are no Jupyter widgets

    def download(url: str, target: str, archive: pooch.Pooch) -> None:
        with Path(target).open("wb") as file:
            pooch.HTTPDownloader(progressbar=True)(url, _Bounded(file), archive)

    try:
        # pooch downloads to a temporary file, and moves it only once the checksum is right.
        path = pooch.retrieve(
            url,
            known_hash=f"md5:{md5}",
            fname=url.rpartition("/")[2],
            path=pooch.os_cache("cltheory") / loader,
            downloader=download,
        )
    except OSError as error:
        raise OSError(
            f"could not download {url} ({error}); {loader}(root) reads the files from a folder"
        ) from error
    return Path(path)


class _Bounded:
    """A file that a server cannot fill the disk with."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file

    def write(self, chunk: bytes) -> None:
        if self.file.tell() + len(chunk) > LARGEST:
            raise OSError(f"more than {LARGEST} bytes came")
        self.file.write(chunk)

    def flush(self) -> None:
        self.file.flush()


def _unpacked_cifar10(names: tuple[str, ...]) -> dict[str, bytes]:
    """Read files out of the archive; no checksum would cover them if they lay unpacked."""
    with tarfile.open(_retrieved(CIFAR10_URL, CIFAR10_MD5, "cifar10")) as archive:
        return {
            member.name: file.read()
            for member in archive
            if Path(member.name).name in names and (file := archive.extractfile(member))
        }


def _found_cifar10(folder: Path, names: tuple[str, ...]) -> dict[str, bytes]:
    there = {
        name: path
        for name in names
        for path in (folder / f"{name}.gz", folder / name)
        if path.is_file()
    }
    if not there:
        raise FileNotFoundError(
            f"no {names[0]} or {names[0]}.gz in {folder}; {_INSTEAD.format('cifar10')}"
        )
    return {str(path): _unzipped(path) for path in there.values()}


def _rows_of_cifar10(raw: bytes, where: str) -> np.ndarray:
    """Read rows of a label and 3,072 bytes of pixels."""
    if not raw or len(raw) % 3073:
        raise ValueError(
            f"{where} must hold rows of 3073 bytes, got {len(raw)} bytes: truncated? "
            f"{_INSTEAD.format('cifar10')}"
        )
    table = np.frombuffer(raw, np.uint8).reshape(-1, 3073).copy()
    if table[:, 0].max() > 9:
        raise ValueError(
            f"{where} must hold labels from 0 to 9, got {table[:, 0].max()}; "
            f"{_INSTEAD.format('cifar10')}"
        )
    return table


def _unzipped(path: Path) -> bytes:
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            raw = bytes(file.read(LARGEST + 1))
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{path} must be a gzip file, got a truncated or corrupt one") from error
    if len(raw) > LARGEST:
        raise ValueError(f"{path} must hold at most {LARGEST} bytes, got more")
    return raw


def _read_idx(path: Path, sha256: str) -> np.ndarray:
    """Read an array of bytes: two zeros, type 8, rank, sizes as big-endian int32, the entries."""
    raw = _unzipped(path)
    found = hashlib.sha256(raw).hexdigest()
    if found != sha256:
        raise ValueError(
            f"{path} must have the sha256 {sha256}, got {found}: truncated, corrupt or another "
            f"file; {_INSTEAD.format('mnist')}"
        )
    rank = raw[3]
    shape = np.frombuffer(raw, ">i4", count=rank, offset=4)
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * rank).reshape(shape).copy()
