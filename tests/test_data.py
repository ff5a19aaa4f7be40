import gzip
import hashlib
import http.server
import io
import os
import struct
import tarfile
import threading

import numpy as np
import pooch
import pytest
import torch
from sklearn.datasets import load_digits

from cltheory import data

SIZES = {"train": 5, "test": 3}


def idx(array):
    return struct.pack(f">HBB{array.ndim}i", 0, 8, array.ndim, *array.shape) + array.tobytes()


@pytest.fixture
def arrays():
    rng = np.random.default_rng(0)
    return {
        split: (
            rng.integers(0, 256, (n, 28, 28), dtype=np.uint8),
            rng.integers(0, 10, n, dtype=np.uint8),
        )
        for split, n in SIZES.items()
    }


@pytest.fixture
def folder(arrays, tmp_path, monkeypatch):
    """A folder with a small MNIST, and its checksums in the place of the real ones."""
    root = tmp_path / "mnist"
    root.mkdir()
    table = {}
    for split, files in data.MNIST_FILES.items():
        entries = []
        for file, array in zip(files, arrays[split], strict=True):
            raw = idx(array)
            archive = gzip.compress(raw)
            (root / f"{file.name}.gz").write_bytes(archive)
            sums = hashlib.sha256(raw).hexdigest(), hashlib.md5(archive).hexdigest()
            entries.append(type(file)(file.name, *sums))
        table[split] = tuple(entries)
    monkeypatch.setattr(data, "MNIST_FILES", table)
    return root


@pytest.fixture
def server(folder, tmp_path, monkeypatch):
    """The folder behind a loopback address, an empty cache, and the paths that were asked for."""
    requests = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=str(folder))

        def do_GET(self):
            requests.append(self.path)
            if server.cut:
                body = (folder / self.path.lstrip("/")).read_bytes()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body[: len(body) // 2])
            else:
                super().do_GET()

        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.cut = False
    server.requests = requests
    server.cache = tmp_path / "cache"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.setattr(data, "MNIST_URL", f"http://127.0.0.1:{server.server_port}/")
    monkeypatch.setattr(pooch, "os_cache", lambda project: server.cache / project)
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def kept(server):
    return [path.name for path in server.cache.rglob("*") if path.is_file()]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_digits(dtype):
    images, labels = data.digits(dtype=dtype)
    bunch = load_digits()
    assert images.dtype == dtype
    assert labels.dtype == torch.int64
    assert images.shape == (1797, 8, 8)
    assert (images.min(), images.max()) == (0, 1)
    assert np.array_equal(images.numpy() * 16, bunch.images)
    assert np.array_equal(labels.numpy(), bunch.target)


@pytest.mark.parametrize("split", SIZES)
@pytest.mark.parametrize("plain", [False, True])
def test_mnist_from_a_folder(folder, arrays, split, plain):
    if plain:
        for path in list(folder.iterdir()):
            path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
            path.unlink()
    images, labels = data.mnist(folder, split=split)
    assert images.dtype == torch.float32
    assert labels.dtype == torch.int64
    np.testing.assert_allclose(images.numpy() * 255, arrays[split][0], rtol=1e-6)
    assert np.array_equal(labels.numpy(), arrays[split][1])


def test_mnist_in_float64_from_a_string(folder):
    assert data.mnist(str(folder), dtype=torch.float64).images.dtype == torch.float64


def truncate_archive(path):
    path.write_bytes(path.read_bytes()[:-20])


def garble_archive(path):
    path.write_bytes(b"<html>" + path.read_bytes())


def truncate_content(path):
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes())[:-1]))


def flip_a_bit(path):
    raw = bytearray(gzip.decompress(path.read_bytes()))
    raw[-1] ^= 1
    path.write_bytes(gzip.compress(bytes(raw)))


def swap_for_another(path):
    path.write_bytes((path.parent / "t10k-images-idx3-ubyte.gz").read_bytes())


def empty(path):
    path.write_bytes(b"")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (truncate_archive, "must be a gzip file, got a truncated or corrupt one"),
        (garble_archive, "must be a gzip file, got a truncated or corrupt one"),
        (truncate_content, "must have the sha256 .*truncated, corrupt or another file"),
        (flip_a_bit, "must have the sha256 .*truncated, corrupt or another file"),
        (swap_for_another, "must have the sha256 .*truncated, corrupt or another file"),
        (empty, "must have the sha256 .*truncated, corrupt or another file"),
    ],
)
@pytest.mark.parametrize("name", ["train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"])
def test_a_damaged_file_is_refused_by_name(folder, damage, message, name):
    damage(folder / name)
    with pytest.raises(ValueError, match=f"{name} {message}"):
        data.mnist(folder)
    assert len(data.mnist(folder, split="test").images) == SIZES["test"]


def test_a_missing_file_or_folder_is_named(folder, tmp_path):
    (folder / "train-labels-idx1-ubyte.gz").unlink()
    message = "no train-labels-idx1-ubyte or train-labels-idx1-ubyte.gz in .*mnist"
    message += r"; copy it there, or call mnist\(\) without a folder to download it"
    with pytest.raises(FileNotFoundError, match=message):
        data.mnist(folder)
    with pytest.raises(FileNotFoundError, match=r"no train-images-idx3-ubyte or .*nowhere"):
        data.mnist(tmp_path / "nowhere")


def test_an_unknown_split_is_named():
    with pytest.raises(ValueError, match="split must be 'train' or 'test', got 'valid'"):
        data.mnist(split="valid")


def test_mnist_is_downloaded_once(server, arrays):
    images, labels = data.mnist()
    assert np.array_equal(labels.numpy(), arrays["train"][1])
    assert sorted(kept(server)) == ["train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"]
    assert len(server.requests) == 2
    assert torch.equal(data.mnist().images, images)
    assert len(server.requests) == 2


def test_a_cut_download_leaves_nothing(server):
    server.cut = True
    with pytest.raises(OSError, match=r"could not download http.*train-images-idx3-ubyte\.gz"):
        data.mnist()
    assert kept(server) == []


def test_a_wrong_download_is_refused_and_leaves_nothing(server, folder):
    swap_for_another(folder / "train-images-idx3-ubyte.gz")
    with pytest.raises(ValueError, match=r"train-images-idx3-ubyte\.gz"):
        data.mnist()
    assert kept(server) == []


def test_a_file_that_the_server_lacks_is_named(server, folder):
    (folder / "train-images-idx3-ubyte.gz").unlink()
    with pytest.raises(
        OSError, match=r"could not download http.*train-images-idx3-ubyte\.gz .*404"
    ):
        data.mnist()
    assert kept(server) == []


def test_more_than_the_largest_file_is_not_taken(server, monkeypatch):
    monkeypatch.setattr(data, "LARGEST", 1000)
    with pytest.raises(OSError, match=r"could not download .*more than 1000 bytes came"):
        data.mnist()
    assert kept(server) == []


def test_more_than_the_largest_file_is_not_unpacked(folder, monkeypatch):
    path = folder / "train-images-idx3-ubyte.gz"
    path.write_bytes(gzip.compress(bytes(10**6)))
    monkeypatch.setattr(data, "LARGEST", 10**5)
    assert path.stat().st_size < data.LARGEST
    with pytest.raises(ValueError, match=r"images-idx3-ubyte\.gz must hold at most 100000 bytes"):
        data.mnist(folder)


def test_a_damaged_cache_is_replaced(server):
    expected = data.mnist().images
    for path in server.cache.rglob("*.gz"):
        truncate_archive(path)
    assert torch.equal(data.mnist().images, expected)


# The real files, where a variable says that they are at hand; their checksums are in the package.
REAL = os.environ.get("CLTHEORY_MNIST")


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("source", ["small", *(["real"] if REAL else [])])
def test_images_and_labels_belong_together(source, split, request):
    root = REAL if source == "real" else request.getfixturevalue("folder")
    images, labels = data.mnist(root, split=split)
    sizes = {"train": 60_000, "test": 10_000} if source == "real" else SIZES
    assert images.shape == (sizes[split], 28, 28)
    assert labels.shape == (sizes[split],)
    assert (images.min(), images.max()) == (0, 1)
    assert labels.max() <= 9


def test_everything_is_on_the_device_that_is_asked_for(folder):
    torch.set_default_device("meta")
    try:
        made = [*data.digits(), *data.mnist(folder)]
    finally:
        torch.set_default_device(None)
    assert {x.device.type for x in made} == {"cpu"}
    assert data.digits(device="meta").images.device.type == "meta"


def test_patches_are_those_of_a_loop():
    for size, threshold in ((1, 0.5), (2, 0.0), (3, 0.5), (4, 0.25)):
        counts, patterns, states = data.digit_patches(size=size, threshold=threshold)
        names = [tuple(pattern.flatten().int().tolist()) for pattern in patterns]
        images = load_digits().images / 16 > threshold
        for i in (0, 900, 1796):
            found = dict.fromkeys(names, 0)
            for row in range(9 - size):
                for column in range(9 - size):
                    patch = images[i, row : row + size, column : column + size]
                    name = tuple(patch.ravel().astype(int).tolist())
                    found[name] += 1
                    assert names[states[i, row, column]] == name
            assert counts[i].tolist() == list(found.values())


@pytest.mark.parametrize(("size", "most"), [(1, 2), (2, 16), (3, 512), (4, 65_536)])
def test_patches_occur_and_are_in_the_order_of_their_code(size, most):
    counts, patterns, _ = data.digit_patches(size=size)
    assert patterns.shape == (counts.shape[1], size, size)
    assert set(patterns.unique().tolist()) == {0, 1}
    code = [int("".join(str(int(pixel)) for pixel in p.flatten()), 2) for p in patterns]
    assert code == sorted(set(code))
    assert len(code) <= most
    assert counts.sum(0).min() >= 1
    assert counts.sum(1).unique().tolist() == [(9 - size) ** 2]


def test_patches_recover_the_number_of_bright_pixels():
    # Patches at 6 x 6 positions cover a pixel once for each position that holds it.
    counts, patterns, _ = data.digit_patches()
    cover = np.convolve(np.ones(6), np.ones(3))
    bright = load_digits().images / 16 > 0.5
    expected = (bright * np.outer(cover, cover)).sum((1, 2))
    assert np.array_equal((counts @ patterns.sum((1, 2))).numpy(), expected)


def test_patches_in_a_dtype_and_on_a_device():
    torch.set_default_device("meta")
    try:
        made = data.digit_patches(dtype=torch.float32)
    finally:
        torch.set_default_device(None)
    assert {x.device.type for x in made} == {"cpu"}
    assert [x.dtype for x in made] == [torch.float32, torch.float32, torch.int64]
    assert torch.equal(made.counts.double(), data.digit_patches().counts)
    assert {x.device.type for x in data.digit_patches(device="meta")} == {"meta"}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"size": 0}, "size must be an integer between 1 and 4, got 0"),
        ({"size": 5}, "size must be an integer between 1 and 4, got 5"),
        ({"size": 2.0}, "size must be an integer between 1 and 4, got 2.0"),
        ({"threshold": 1.0}, r"threshold must be in \[0, 1\), got 1.0"),
        ({"threshold": -0.1}, r"threshold must be in \[0, 1\), got -0.1"),
        ({"threshold": float("nan")}, r"threshold must be in \[0, 1\), got nan"),
    ],
)
def test_patches_refuse(options, words):
    with pytest.raises(ValueError, match=words):
        data.digit_patches(**options)


@pytest.fixture
def colours(tmp_path):
    """A folder with two small files of CIFAR-10 to train on, and one to test with."""
    rng = np.random.default_rng(0)
    tables = {
        name: np.concatenate(
            [rng.integers(0, 10, (n, 1)), rng.integers(0, 256, (n, 3072))], 1
        ).astype(np.uint8)
        for name, n in (("data_batch_1", 3), ("data_batch_4", 2), ("test_batch", 4))
    }
    for name, table in tables.items():
        packed = name != "data_batch_4"
        path = tmp_path / f"{name}.bin{'.gz' * packed}"
        path.write_bytes(gzip.compress(table.tobytes()) if packed else table.tobytes())
    return tmp_path, tables


def test_cifar10_is_downloaded_once_and_read_out_of_its_archive(
    server, folder, colours, monkeypatch
):
    _, tables = colours
    path = folder / "cifar-10-binary.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for name in reversed(tables):
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}.bin")
            member.size = tables[name].nbytes
            archive.addfile(member, io.BytesIO(tables[name].tobytes()))
    monkeypatch.setattr(data, "CIFAR10_URL", data.MNIST_URL + path.name)
    monkeypatch.setattr(data, "CIFAR10_MD5", hashlib.md5(path.read_bytes()).hexdigest())
    train, test = (data.cifar10(split=split) for split in ("train", "test"))
    rows = np.concatenate([tables["data_batch_1"], tables["data_batch_4"]])
    assert train.labels.tolist() == rows[:, 0].tolist()
    assert np.array_equal((train.images * 255).round().flatten(1).numpy(), rows[:, 1:])
    assert test.labels.tolist() == tables["test_batch"][:, 0].tolist()
    assert (kept(server), len(server.requests)) == ([path.name], 1), "nothing lies unpacked"


def test_cifar10_reads_the_files_that_are_there(colours):
    folder, tables = colours
    train, test = (data.cifar10(folder, split=split) for split in ("train", "test"))
    rows = np.concatenate([tables["data_batch_1"], tables["data_batch_4"]])
    assert train.images.shape == (5, 3, 32, 32)
    assert train.labels.tolist() == rows[:, 0].tolist()
    for k, channel, i, j in ((0, 0, 0, 0), (4, 1, 3, 7), (2, 2, 31, 31)):
        byte = rows[k, 1 + 1024 * channel + 32 * i + j]
        assert float(train.images[k, channel, i, j]) == pytest.approx(byte / 255)
    assert test.labels.tolist() == tables["test_batch"][:, 0].tolist()
    double = data.cifar10(folder, split="test", dtype=torch.float64)
    assert double.images.dtype == torch.float64
    assert double.labels.dtype == torch.int64


def test_cifar10_refuses(colours, tmp_path):
    folder, tables = colours
    with pytest.raises(ValueError, match="split must be 'train' or 'test', got 'valid'"):
        data.cifar10(folder, split="valid")
    (folder / "test_batch.bin").write_bytes(tables["test_batch"].tobytes()[:-1])
    with pytest.raises(ValueError, match="must hold rows of 3073 bytes, got 12291"):
        data.cifar10(folder, split="test")
    wrong = tables["test_batch"].copy()
    wrong[1, 0] = 10
    (folder / "test_batch.bin").write_bytes(wrong.tobytes())
    with pytest.raises(ValueError, match="must hold labels from 0 to 9, got 10"):
        data.cifar10(folder, split="test")
    (folder / "test_batch.bin").unlink()
    packed = folder / "test_batch.bin.gz"
    packed.write_bytes(packed.read_bytes()[:100])
    with pytest.raises(ValueError, match="truncated or corrupt"):
        data.cifar10(folder, split="test")
    with pytest.raises(FileNotFoundError, match=r"no data_batch_1\.bin"):
        data.cifar10(tmp_path / "nowhere")
