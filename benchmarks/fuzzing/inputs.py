"""The whole files that mutations begin with, made by code: small, and of every kind."""

import functools
import io
import json
import random
import struct
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.fuzzing.containers import (
    Entry,
    gzipped,
    idx,
    mutate_idx,
    mutate_npy,
    mutate_png,
    mutate_segments,
    mutate_tar,
    mutate_zip,
    npy,
    safetensors_file,
    zipped,
)
from benchmarks.fuzzing.mutators import json_bytes, mutate_bytes, times
from benchmarks.fuzzing.pickles import mutate_pickle, number, state_dict, tensor, word

__all__ = ["FORMATS", "Files", "JSON_TREES", "image", "student_record"]

# Name -> contents, below one folder.
Files = dict[str, bytes]

_STORED, _DEFLATED = zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED
_NUMBERS = np.arange(12, dtype=np.float32)


def safetensors(rng: random.Random) -> Files:
    """Weights: one file."""
    return {
        "weights": safetensors_file(rng, _SAFETENSORS, _NUMBERS.tobytes() + bytes(8))
    }


_SAFETENSORS = {
    "__metadata__": {"model": "resnet18", "format": "pt"},
    "conv.weight": {"dtype": "F32", "shape": [2, 3, 2], "data_offsets": [0, 48]},
    "fc.bias": {"dtype": "BF16", "shape": [4], "data_offsets": [48, 56]},
}


def index(rng: random.Random) -> Files:
    """Weights in two files, with their index."""
    first = {"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}
    second = {"b": {"dtype": "F32", "shape": [8], "data_offsets": [0, 32]}}
    tree = {
        "metadata": {"total_size": 48},
        "weight_map": {"a": "1.safetensors", "b": "2.safetensors"},
    }
    which = rng.randrange(4)
    return {
        "weights": json_bytes(rng, tree, mutate=which > 0),
        "1.safetensors": safetensors_file(
            rng if which == 0 else None, first, bytes(16)
        ),
        "2.safetensors": safetensors_file(None, second, bytes(32)),
    }


def npz_weights(rng: random.Random) -> Files:
    """Weights: an archive of arrays."""
    return {"weights": _mutated_npz(rng, _WEIGHT_ARRAYS)}


_WEIGHT_ARRAYS = {"conv": npy(_NUMBERS.reshape(3, 4)), "bias": npy(_NUMBERS[:3])}


def _mutated_npz(rng: random.Random, arrays: Mapping[str, bytes]) -> bytes:
    method = _DEFLATED if rng.random() < 0.5 else _STORED
    changed = dict(arrays)
    if rng.random() < 0.6:
        name = rng.choice(list(changed))
        changed[name] = mutate_npy(rng, changed[name])
        return zipped([(f"{n}.npy", method, data) for n, data in changed.items()])
    return mutate_zip(rng, [(f"{n}.npy", method, data) for n, data in changed.items()])


@functools.cache
def _trees() -> tuple[bytes, ...]:
    first, second = tensor("0", 12, (3, 4), (4, 1)), tensor("1", 4, (4,), (1,))
    plain = {"conv.weight": first, "conv.bias": second}
    inner = state_dict(plain)[2:-1]
    arguments = (
        b"cargparse\nNamespace\n)\x81}"
        + word("lr")
        + b"G?\xb9\x99\x99\x99\x99\x99\x9as"
        + b"b"
    )
    kept = b"ctorch._utils\n_rebuild_parameter\n" + first + b"\x88" + second + b"\x87R"
    return (
        state_dict(plain),
        state_dict({"epoch": number(3), "state_dict": inner, "args": arguments}),
        state_dict({"module.weight": kept, "module.steps": tensor("1", 4, (), ())}),
    )


def torch_zip(rng: random.Random) -> Files:
    """Weights: torch's archive."""
    pickle = rng.choice(_trees())
    mutates_pickle = rng.random() < 0.75
    if mutates_pickle:
        pickle = mutate_pickle(rng, pickle)
    entries: list[Entry] = [
        ("archive/data.pkl", _STORED, pickle),
        ("archive/byteorder", _STORED, rng.choice((b"little", b"little", b"big"))),
        ("archive/data/0", _STORED, _NUMBERS.tobytes()),
        ("archive/data/1", _STORED, _NUMBERS[:4].tobytes()),
        ("archive/version", _STORED, b"3\n"),
    ]
    return {"weights": zipped(entries) if mutates_pickle else mutate_zip(rng, entries)}


def torch_legacy(rng: random.Random) -> Files:
    """Weights: torch's older stream of pickles and storages."""
    storages = b"".join(
        struct.pack("<q", x.size) + x.tobytes() for x in (_NUMBERS, _NUMBERS[:4])
    )
    machine = b"\x80\x02}(" + word("little_endian") + b"\x88u."
    parts = [
        b"\x80\x02" + number(0x1950A86A20F9469CFC6C) + b".",
        b"\x80\x02" + number(1001) + b".",
        machine,
        rng.choice(_trees()),
        b"\x80\x02](" + word("0") + word("1") + b"e.",
    ]
    if rng.random() < 0.8:
        at = rng.choice((3, 3, 3, 3, 4, 4, 2, 1, 0))
        parts[at] = mutate_pickle(rng, parts[at])
        return {"weights": b"".join([*parts, storages])}
    return {"weights": mutate_bytes(rng, b"".join([*parts, storages]))}


_IMAGES = (np.arange(6 * 5 * 5) % 256).astype(np.uint8).reshape(6, 5, 5)
_LABELS = np.array([0, 1, 2, 0, 1, 2], np.uint8)


def idx_data(rng: random.Random) -> Files:
    """A set of images in MNIST's format."""
    gzip_it = rng.random() < 0.5
    end = ".gz" if gzip_it else ""
    files = {}
    which = rng.randrange(5)
    for k, (name, array) in enumerate(
        (("images-idx3", _IMAGES), ("labels-idx1", _LABELS))
    ):
        data = idx(array)
        if which in (k, k + 2):
            data = mutate_idx(rng, data, gzip_it)
        elif gzip_it:
            data = gzipped(data)
        for part in ("train", "t10k"):
            files[f"{part}-{name}-ubyte{end}"] = data
    if which == 4:
        files["classes.txt"] = mutate_bytes(rng, b"one\ntwo\nthree\n", (b"\n", b"\r"))
    return files


_TABLES = (
    b"image,cat,dog,split\na.png,1,0,train\na.png,1,1,train\na.png,0,0,test\n",
    b"image,labels\na.png,cat;dog\na.png,\n",
    b"image,label\na.png,cat\na.png,dog\n",
    b'\xef\xbb\xbffile,tags\r\n"a.png",cat dog\r\n"a.png",cat\r\n',
)


def csv_data(rng: random.Random) -> Files:
    """Images and their classes in a CSV file."""
    tokens = (b",", b'"', b"\n", b"\r", b";", b"|", b"labels", b"split", b"0", b"1")
    table = mutate_bytes(rng, rng.choice(_TABLES), tokens, head=20)
    return {"data.csv": table, "a.png": image("PNG")[0]}


def npz_data(rng: random.Random) -> Files:
    """A set of images in an archive of arrays."""
    labels = rng.choice((npy(_LABELS), npy(_LABELS.astype("<i8")), npy(_WORDS)))
    arrays = {"x_train": npy(_IMAGES), "y_train": labels}
    if rng.random() < 0.3:
        arrays |= {"x_test": npy(_IMAGES[:3]), "y_test": labels}
    if rng.random() < 0.3:
        arrays["class_names"] = npy(np.array(["a", "b", "c"], rng.choice(("U1", "S1"))))
    return {"data.npz": _mutated_npz(rng, arrays)}


_WORDS = np.array(["a", "b", "c", "a", "b", "c"])


@functools.cache
def image(form: str) -> tuple[bytes, ...]:
    """Small image files of one of `FORMATS`, by Pillow."""
    from PIL import Image

    y, x = np.mgrid[:18, :14]
    pixels = np.stack([13 * x % 256, 11 * y % 256, (x * y) % 256], -1).astype(np.uint8)
    colour = Image.fromarray(pixels)
    grey, clear = colour.convert("L"), colour.convert("RGBA")
    clear.putalpha(grey)
    palette = colour.quantize(16)
    modes = {
        **{
            "RGB": colour,
            "L": grey,
            "RGBA": clear,
            "P": palette,
            "1": grey.convert("1"),
        },
        **{"LA": clear.convert("LA"), "CMYK": colour.convert("CMYK")},
        "I;16": Image.fromarray(np.arange(252, dtype=np.uint16).reshape(18, 14) * 260),
    }
    files = []
    for mode, options in FORMATS[form]:
        stream = io.BytesIO()
        exif = Image.Exif()
        exif[0x0112] = 6
        words = {"exif": exif} if options.get("exif") else {}
        modes[mode].save(stream, form, **{**options, **words})
        files.append(stream.getvalue())
    return tuple(files)


# Format -> the modes and options that are saved.
FORMATS: dict[str, Sequence[tuple[str, dict[str, Any]]]] = {
    "PNG": (
        *((mode, {}) for mode in ("RGB", "L", "RGBA", "P", "1", "LA", "I;16")),
        *(("P", {"transparency": 3}), ("RGB", {"exif": True}), ("L", {"bits": 4})),
    ),
    "JPEG": (
        *(("RGB", {}), ("L", {}), ("CMYK", {}), ("RGB", {"progressive": True})),
        *(("RGB", {"exif": True}), ("RGB", {"subsampling": 2, "quality": 20})),
    ),
    "GIF": (("P", {}), ("L", {"interlace": 1}), ("P", {"transparency": 2})),
    "BMP": (("RGB", {}), ("L", {}), ("P", {}), ("1", {})),
    "TIFF": (
        *((mode, {}) for mode in ("RGB", "L", "RGBA", "P", "1", "I;16", "CMYK")),
        *(
            ("RGB", {"compression": f"tiff_{c}"})
            for c in ("lzw", "adobe_deflate", "jpeg")
        ),
        *(("1", {"compression": "group4"}), ("L", {"compression": "packbits"})),
    ),
    "WEBP": (("RGB", {}), ("RGBA", {"lossless": True}), ("RGB", {"exif": True})),
    "PPM": (("RGB", {}), ("L", {}), ("1", {}), ("I;16", {})),
    "JPEG2000": (("RGB", {}), ("L", {})),
    "AVIF": (("RGB", {"speed": 10}), ("RGBA", {"speed": 10})),
    "ICO": (("RGBA", {"sizes": [(12, 12)]}),),
    "TGA": (("RGB", {}), ("RGBA", {"compression": "tga_rle"}), ("P", {})),
    "PCX": (("RGB", {}), ("P", {}), ("1", {})),
    "SGI": (("RGB", {}), ("L", {})),
    "DDS": (("RGBA", {}), ("RGB", {})),
    "EPS": (("RGB", {}),),
    "PDF": (("RGB", {}),),
}
_OTHER = ("ICO", "TGA", "PCX", "SGI", "DDS", "EPS", "PDF")
_TOKENS = {
    "GIF": (b"\x21\xf9", b"\x21\xff", b"\x2c", b"\x3b", b"NETSCAPE2.0"),
    "TIFF": tuple(
        struct.pack("<H", tag) for tag in (256, 257, 258, 259, 262, 273, 322)
    ),
    "WEBP": (b"RIFF", b"WEBP", b"VP8 ", b"VP8L", b"VP8X", b"ANMF", b"ALPH", b"EXIF"),
    "PPM": (
        b"P1",
        b"P3",
        b"P6",
        b"P7\n",
        b"Pf",
        b"PyCMYK",
        b"#",
        b"\n",
        b"65535 ",
        b"-1 ",
    ),
    "AVIF": (b"ftyp", b"meta", b"iloc", b"ispe", b"av1C", b"mdat", b"irot", b"auxC"),
    "EPS": (
        b"%!PS-Adobe-3.0 EPSF-3.0\n",
        b"%%BoundingBox: 0 0 8 8\n",
        b"%%EndComments\n",
    ),
}


def image_file(rng: random.Random, form: str) -> Files:
    """One image file."""
    form = rng.choice(_OTHER) if form == "OTHER" else form
    data = rng.choice(image(form))
    chance = rng.random()
    if form == "PNG" and chance < 0.75:
        data = mutate_png(rng, data)
    elif form == "JPEG" and chance < 0.75:
        data = mutate_segments(rng, data)
    else:
        data = mutate_bytes(rng, data, _TOKENS.get(form, ()), head=80)
    return {"image": data}


# The JSON files that programs read, as they write them.
JSON_TREES: dict[str, Any] = {
    "result.json": {
        **dict.fromkeys(("loss", "accuracy", "calibration_error", "seconds"), 0.5),
        **dict.fromkeys(("images_per_second", "top5_accuracy", "ema_accuracy"), 0.5),
        **dict.fromkeys(("classes", "test_images", "unreadable_images"), 10),
        **dict.fromkeys(("parameters", "epochs", "steps"), 10),
        "split": "test",
    },
    "labelling_times.json": {"round 1, labels": 1.5, "round 2, labels": 2},
    "labels.json": {
        **{"format": "label shards 1", "run": "run", "teacher": "abc", "step": 3},
        **{"top": 1, "class_names": ["a", "b"], "ema": False},
    },
}


@functools.cache
def student_record() -> dict[str, Any]:
    """The record of a Noisy Student, as `train.noisy_student.run` writes it."""
    from train import recipes
    from train.config_file import _jsonable
    from train.noisy_student.plan import settings

    student = recipes.load("noisy_student_digits").noisy_student
    assert student is not None
    return {"format": 1, "recipe": "a", "settings": _jsonable(settings(student))}


def noisy_student(rng: random.Random) -> Files:
    """The record of a Noisy Student."""
    return {"noisy_student.json": json_bytes(rng, student_record())}


def json_file(rng: random.Random, name: str) -> Files:
    """One JSON file of `JSON_TREES`."""
    return {name: json_bytes(rng, JSON_TREES[name])}


@functools.cache
def _record() -> dict[str, Any]:
    from train import recipes
    from train.config_file import config_to_json

    return {
        "format": 1,
        "recipe": "digits_resnet",
        "config": config_to_json(recipes.load("digits_resnet").config),
        "model": {"name": "resnet18", "fields": {"num_classes": 2, "width": 4}},
        "input": {"image_size": 8, "channels": 1, "mean": [0.5], "std": [0.5]},
        "class_names": ["a", "b"],
        "versions": {"jax": "0.12.0"},
        "machine": {"devices": 1},
    }


def run_config(rng: random.Random) -> Files:
    """A run's `config.json`."""
    return {"config.json": json_bytes(rng, _record())}


def metrics(rng: random.Random) -> Files:
    """A run's `metrics.jsonl`."""
    lines = [
        {"step": k, "epoch": k / 2, "split": "train", "loss": 1.5, "accuracy": 0.5}
        for k in range(1, 4)
    ]
    at = rng.randrange(3)
    parts = [json_bytes(rng, x, mutate=k == at) for k, x in enumerate(lines)]
    data = b"\n".join([*parts, b""])
    return {"metrics.jsonl": mutate_bytes(rng, data) if rng.random() < 0.1 else data}


_HEADER = {
    **{"format": "pseudo-labels 1", "run": "run", "step": 3, "ema": False},
    **{"teacher": "abc", "data": "digits", "digest": "def", "images": 4, "labelled": 4},
    **{"class_names": ["a", "b"], "unreadable": {"3": ["name", "reason"]}},
    **{"versions": {"jax": "0.12.0"}, "machine": {"devices": 1}},
}
_ROWS = np.array([[0.5, 0.5], [0, 1], [0.25, 0.75], [np.nan, np.nan]], np.float32)


def pseudo_labels(rng: random.Random) -> Files:
    """A file of pseudo-labels and its header."""
    if rng.random() < 0.5:
        return {"labels.npy.json": json_bytes(rng, _HEADER), "labels.npy": npy(_ROWS)}
    header = json.dumps(_HEADER).encode()
    return {"labels.npy.json": header, "labels.npy": mutate_npy(rng, npy(_ROWS))}


_SHARD = {"digest": "d", "teacher": "t", "images": 2, "top": 1, "classes": 2}
_SHARD_ARRAYS = {
    "keys": npy(np.zeros(2, "u8")),
    "classes": npy(np.zeros((1, 2), "u2")),
    "log_probs": npy(np.zeros((1, 2), "f2")),
}


def label_shard(rng: random.Random) -> Files:
    """The labels of a shard."""
    header = {**_SHARD, "unreadable": {"1": ["name", "reason"]}}
    mutates_header = rng.random() < 0.4
    text = json_bytes(rng, header, mutate=mutates_header)
    arrays = {**_SHARD_ARRAYS, "header": npy(np.frombuffer(text, np.uint8))}
    if mutates_header:
        return {
            "labels.npz": zipped([(f"{n}.npy", _STORED, x) for n, x in arrays.items()])
        }
    return {"labels.npz": _mutated_npz(rng, arrays)}


def output_cache(rng: random.Random) -> Files:
    """Cached features or answers: an array and a digest."""
    from train.run.output_cache import _digest

    data = npy(_ROWS) + _digest(_ROWS, "")
    change = mutate_npy if rng.random() < 0.8 else mutate_bytes
    return {"rows.npy": change(rng, data)}


def published(rng: random.Random) -> Files:
    """A folder of weights with a `config.json`, as on the Hugging Face Hub."""
    tree = {
        "architecture": "resnet18",
        "num_classes": 2,
        "label_names": ["a", "b"],
        "model_args": {"in_chans": 3},
        "pretrained_cfg": {
            **{"input_size": [3, 64, 64], "fixed_input_size": False},
            **{"interpolation": "bicubic", "crop_pct": 0.875, "crop_mode": "center"},
            **{"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "num_classes": 2},
            **{"pool_size": [2, 2], "first_conv": "conv1", "classifier": "fc"},
        },
        "cnn_flax": {"fields": {"width": 4}},
    }
    body = safetensors_file(None, _SAFETENSORS, _NUMBERS.tobytes() + bytes(8))
    return {"model.safetensors": body, "config.json": json_bytes(rng, tree)}


def tar(rng: random.Random) -> Files:
    """A tar of images, as of WebDataset."""
    picture = image("PNG")[0]
    members = [("a.png", picture), ("a.cls", b"1"), ("b/c.jpg", image("JPEG")[1])]
    return {"shard.tar": mutate_tar(rng, members)}


@functools.cache
def _parquet() -> tuple[bytes, ...]:
    import pyarrow
    from pyarrow import parquet

    rows = [image("PNG")[0], image("JPEG")[0], image("GIF")[0]]
    tables = (
        pyarrow.table({"image": rows, "label": [0, 1, 2]}),
        pyarrow.table({"image": [{"bytes": x, "path": "a"} for x in rows]}),
    )
    files = []
    for table in tables:
        for compression in ("none", "snappy", "gzip", "zstd"):
            stream = io.BytesIO()
            parquet.write_table(
                table, stream, compression=compression, row_group_size=2
            )
            files.append(stream.getvalue())
    return tuple(files)


def parquet(rng: random.Random) -> Files:
    """A parquet file with a column of images: most changes hit its footer."""
    data = rng.choice(_parquet())
    start = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    if rng.random() < 0.6:
        footer = mutate_bytes(rng, data[start:-8])
        size = len(footer).to_bytes(4, "little")
        return {"shard.parquet": data[:start] + footer + size + b"PAR1"}
    return {"shard.parquet": mutate_bytes(rng, data)}


@functools.cache
def _array_record() -> bytes:
    from array_record.python.array_record_module import ArrayRecordWriter

    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/shard"
        writer = ArrayRecordWriter(path, "group_size:1")
        for form in ("PNG", "JPEG", "GIF"):
            writer.write(image(form)[0])
        writer.close()
        return Path(path).read_bytes()


def array_record(rng: random.Random) -> Files:
    """An array_record file: blocks of 64 KiB, mostly of zeros."""
    data = bytearray(_array_record())
    places = [0, 0, 0, *range(0, len(data), 2**16)]
    for _ in range(times(rng)):
        at = rng.choice(places)
        part = mutate_bytes(rng, bytes(data[at : at + 600]))
        data[at : at + (len(part) if rng.random() < 0.9 else 600)] = part
    if rng.random() < 0.1:
        del data[rng.randrange(len(data)) :]
    return {"shard.array_record": bytes(data)}


_HANDLER = "orbax.checkpoint._src.handlers.standard_checkpoint_handler."
_CHECKPOINT = {
    "metadata": {"format": 2, "step": 7, "meter": {"seconds": 1.5}, "unreadable": {}},
    "_CHECKPOINT_METADATA": {
        "item_handlers": {
            "model": f"{_HANDLER}StandardCheckpointHandler",
            "rest": f"{_HANDLER}StandardCheckpointHandler",
            "meta": "orbax.checkpoint._src.handlers.json_checkpoint_handler."
            "JsonCheckpointHandler",
        },
        **{"metrics": {}, "performance_metrics": {}, "custom_metadata": {}},
        **{"init_timestamp_nsecs": 1, "commit_timestamp_nsecs": 2},
    },
}


def checkpoint(rng: random.Random) -> Files:
    """The metadata of a run's checkpoint."""
    at = rng.choice(list(_CHECKPOINT))
    return {
        name: json_bytes(rng, tree, mutate=name == at)
        for name, tree in _CHECKPOINT.items()
    }


def shard_list(rng: random.Random) -> Files:
    """A list of image files."""
    text = b"image\n./image\n \n\timage\r\n"
    tokens = (b"\n", b"\r\n", b"\0", b"/dev/null", b"..", b"/", b"\xff", b"image")
    return {"shard.txt": mutate_bytes(rng, text, tokens), "image": image("PNG")[1]}


@functools.cache
def _records() -> bytes:
    from tensorflow_datasets.proto import tf_example_pb2

    frames = []
    for label, data in enumerate((image("PNG")[0], image("JPEG")[0])):
        example = tf_example_pb2.Example()  # pyright: ignore[reportAttributeAccessIssue]
        example.features.feature["image"].bytes_list.value.append(data)
        example.features.feature["label"].int64_list.value.append(label)
        record = example.SerializeToString(deterministic=True)
        frames.append(struct.pack("<Q", len(record)) + bytes(4) + record + bytes(4))
    return b"".join(frames)


def tfrecord(rng: random.Random) -> Files:
    """A TFRecord file of tensorflow-datasets."""
    return {"records": mutate_bytes(rng, _records(), head=60)}
