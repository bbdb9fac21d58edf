"""Writes the first inputs of the fuzzing corpus: valid_* files, which readers must accept, hostile_* files, which
they must refuse, and edge_* files. What fuzzing found or covered (found_*, covers_*) is kept beside them and not made here.

    python3 tests/fuzz/make_corpus.py
"""

import base64
import gzip
import io
import json
import pathlib
import struct
import tarfile
import zlib

here = pathlib.Path(__file__).resolve().parent
project = here.parents[1]


def crc32c(data: bytes) -> int:
    """The checksum of core/checksum.h, bit by bit."""
    value = 0xFFFFFFFF
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = (value >> 1) ^ (0x82F63B78 if value & 1 else 0)
    return value ^ 0xFFFFFFFF


def safetensors_file(header: str | bytes, data: bytes = b"") -> bytes:
    text = header.encode() if isinstance(header, str) else header
    return struct.pack("<Q", len(text)) + text + data


def with_checksums(tensors: dict[str, tuple[str, list[int], bytes]], metadata: dict[str, str]) -> bytes:
    """As core/safetensors.cpp writes it."""
    sums = json.dumps({name: f"{crc32c(data):08x}" for name, (_, _, data) in tensors.items()}, separators=(",", ":"))
    header = {"__metadata__": {**metadata, "sage.crc32c.tensors": sums, "sage.crc32c.header": "00000000"}}
    offset = 0
    for name, (dtype, shape, data) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [offset, offset + len(data)]}
        offset += len(data)
    text = json.dumps(header, separators=(",", ":"))
    text += " " * (-len(text) % 8)
    checksum = crc32c(struct.pack("<Q", len(text)) + text.encode())
    text = text.replace('"sage.crc32c.header":"00000000"', f'"sage.crc32c.header":"{checksum:08x}"')
    return safetensors_file(text, b"".join(data for _, _, data in tensors.values()))


def safetensors() -> dict[str, bytes]:
    one = '"dtype":"F32","shape":[2],"data_offsets":[0,8]'
    eight = bytes(8)

    def of(entry: str, data: bytes = eight) -> bytes:
        return safetensors_file('{"a":{' + entry + "}}", data)

    return {
        "valid_one": of(one),
        "valid_empty": safetensors_file("{}"),
        "valid_checksums": with_checksums({"w": ("F64", [1], eight), "b": ("BOOL", [2], b"\0\1")}, {"k": "v"}),
        "valid_types": safetensors_file(
            '{"a":{"dtype":"BF16","shape":[2,1],"data_offsets":[0,4]},"b":{"dtype":"I32","shape":[],"data_offsets":[4,8]},'
            '"c":{"dtype":"U8","shape":[3,0],"data_offsets":[8,8]},"__metadata__":{"format":"pt"}}',
            eight,
        ),
        "hostile_deep": safetensors_file('{"a":' + "[" * 600 + "]" * 600 + "}"),
        "hostile_twice": safetensors_file('{"a":{' + one + '},"a":{' + one + "}}", eight),
        "hostile_product": of('"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]', b""),
        "hostile_negative": of('"dtype":"F32","shape":[-2],"data_offsets":[0,8]'),
        "hostile_overlap": safetensors_file(
            '{"a":{"dtype":"U8","shape":[6],"data_offsets":[0,6]},"b":{"dtype":"U8","shape":[4],"data_offsets":[4,8]}}', eight
        ),
        "hostile_gap": of('"dtype":"U8","shape":[4],"data_offsets":[4,8]'),
        "hostile_length": struct.pack("<Q", 2**63) + b"{}",
        "hostile_bool": of('"dtype":"BOOL","shape":[8],"data_offsets":[0,8]', b"\2" * 8),
        "hostile_checked_bool": with_checksums({"b": ("BOOL", [2], b"\0\2")}, {}),
        "hostile_nul_name": safetensors_file('{"a\\u0000b":{' + one + "}}", eight),
        "hostile_utf8": safetensors_file(b'{"\xff":1}'),
        "hostile_sums": safetensors_file(
            json.dumps({"__metadata__": {"sage.crc32c.tensors": "[" * 600, "sage.crc32c.header": "00000000"}})
        ),
    }


STATE = {
    "format": 2, "complete": True, "model": "cnn", "dataset": "digits", "class_count": 10, "seed": 3,
    "global_batch": 64, "epoch": 1, "step": 20, "order_position": 0, "examples": 1280, "selection_round": 0,
    "selection_epoch": -1, "seconds": 0.5, "selection_seconds": 0, "best_accuracy": 0.5, "best_epoch": 1,
    "proxy_position": {"epoch": 0, "step": 0, "order_position": 0, "examples": 0}, "proxy_seconds": 0,
    "selection": None,
}  # fmt: skip


def checkpoint_state() -> dict[str, bytes]:
    def of(*parts: str, **changes: object) -> bytes:
        return "\1".join([json.dumps({**STATE, **changes}), "{}", *parts]).encode()

    return {
        "valid_state": of(),
        "valid_selection": of("training/subset_ids", "training/selection/x", selection='{"a":1}'),
        "valid_ranks": of("training/learner/0/scale", "training/buffers/1/mean", "training/proxy/model/weight"),
        "hostile_float": of(epoch=1e300),
        "hostile_negative": of(step=-5),
        "hostile_large": of(examples=2**64 - 1),
        "hostile_rank": of("training/learner/99999999999999999999/x"),
        "edge_many_ranks": of("training/learner/1048575/x"),
        "hostile_unknown": of("training/other"),
        "hostile_deep": (json.dumps(STATE)[:-1] + ',"x":' + "[" * 600 + "]" * 600 + "}\1{}").encode(),
        "hostile_twice": (json.dumps(STATE)[:-1] + ',"epoch":7}\1{}').encode(),
        "hostile_format": of(format=99),
        "hostile_list": b"[]\1{}",
    }


def config() -> dict[str, bytes]:
    laughs = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
        f"{b}: &{b} [{','.join(['*' + a] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
    )
    files = {f"valid_{path.stem}": path.read_bytes() for path in sorted((project / "configs").glob("*.yaml"))}
    return files | {
        "valid_overrides": b"seed: 3\n\1training.lr=0.5\1selection.gradient.scope=[layer3.*, fc.weight]",
        "valid_flow": b"{training: {epochs: 3, milestones: [1, 2]}, device: cpu}",
        "hostile_laughs": laughs.encode(),
        "hostile_cycle": b"training: &t {lr: *t}\n",
        "hostile_flow": b"[" * 1200,
        "hostile_maps": b"{a: " * 1200,
        "hostile_sequences": b"- " * 1200,
        "hostile_block": b"".join(b" " * i + b"a:\n" for i in range(60)),
        "hostile_nul": b"seed: 1\0\n",
        "hostile_end_of_transmission": b"seed: 1\n\4training: {lr: 0.5}\n",
        "hostile_utf8": b"output_dir: \xff\xfe\n",
        "hostile_documents": b"seed: 1\n---\nseed: 2\n",
        "hostile_twice": b"seed: 1\nseed: 2\n",
        "hostile_large": b"training: {epochs: 99999999999999999999}",
        "hostile_key": b"? [a, b]\n: 1\n",
    }


def cifar_records(count: int, label_bytes: int) -> bytes:
    return b"".join(bytes([i % 10] * label_bytes) + bytes((i + p) % 251 for p in range(3072)) for i in range(count))


def cifar() -> dict[str, bytes]:
    names = b"a\nb\nc\nd\ne\nf\ng\nh\ni\nj\n"
    three = cifar_records(3, 1)
    return {
        "valid_cifar10": b"\0\0" + three,
        "valid_names": b"\0" + bytes([len(names)]) + names + three,
        "valid_cifar100": b"\1\0" + cifar_records(2, 2),
        "valid_coarse": b"\2\0" + cifar_records(2, 2),
        "hostile_cut": b"\0\0" + three[:-1],
        "hostile_label": b"\0\0\x0a" + three[1:],
        "hostile_empty": b"\0\0",
        "hostile_names": b"\0\3a\nb" + three,
        "hostile_names_nul": b"\0" + bytes([len(names)]) + names.replace(b"a", b"\0") + three,
        "hostile_gzip_of_nothing": b"\0\0" + gzip.compress(b"", mtime=0),
    }


def idx() -> dict[str, bytes]:
    def labels(count: int, values: bytes) -> bytes:
        body = struct.pack(">II", 0x801, count) + values
        return bytes([len(body)]) + body

    def images(count: int, held: int, side: int = 28) -> bytes:
        return struct.pack(">IIII", 0x803, count, side, side) + bytes(range(196)) * 4 * held

    return {
        "valid_mnist": b"\0" + labels(2, b"\3\4") + images(2, 2),
        "valid_fashion": b"\1" + labels(1, b"\0") + images(1, 1),
        "valid_gzip": b"\0" + labels(2, b"\3\4") + gzip.compress(images(2, 2), mtime=0),
        "hostile_count": b"\0" + labels(2, b"\3\4") + images(2**32 - 1, 2),
        "hostile_promise": b"\0" + labels(2, b"\3\4") + images(60000, 2),
        "hostile_side": b"\0" + labels(2, b"\3\4") + images(2, 2, side=2**31),
        "hostile_label": b"\0" + labels(2, b"\3\x0a") + images(2, 2),
        "hostile_numbers": b"\0" + labels(3, b"\3\4\5") + images(2, 2),
        "hostile_more": b"\0" + labels(2, b"\3\4") + images(2, 2) + b"x",
        "hostile_gzip_cut": b"\0" + labels(2, b"\3\4") + gzip.compress(images(2, 2), mtime=0)[:-6],
    }


def human_labels() -> dict[str, bytes]:
    own = bytes(i % 10 for i in range(50))
    some = bytes([3]) + own[1:]
    exact, partial = bytes([50 << 1]), bytes([50 << 1 | 1])
    return {
        "valid_one": exact + some,
        "valid_more": partial + some + own,
        "valid_gzip": exact + gzip.compress(some, mtime=0),
        "hostile_clean": exact + own,
        "hostile_more": exact + some + b"\0",
        "hostile_fewer": partial + some[:-1],
        "hostile_class": exact + some[:-1] + b"\x0a",
        "hostile_others": exact + bytes((i + 1) % 10 for i in range(50)),
        "hostile_gzip_cut": exact + gzip.compress(some, mtime=0)[:-6],
    }


def tar_of(*entries: tuple[str, bytes, bytes], form: int = tarfile.USTAR_FORMAT, link: str = "") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as archive:
        for name, kind, content in entries:
            info = tarfile.TarInfo(name)
            info.type, info.size, info.linkname = kind, len(content), link
            info.mtime = 0.5 if form == tarfile.PAX_FORMAT else 0  # half a second takes a pax header
            archive.addfile(info, io.BytesIO(content))
        end = archive.offset + 1024  # the end mark, without the padding after it
    return buffer.getvalue()[:end]


def tar() -> dict[str, bytes]:
    plain, folder = tarfile.REGTYPE, tarfile.DIRTYPE
    good = tar_of(("d", folder, b""), ("d/a.bin", plain, b"abc"), ("d/b.bin", plain, bytes(600)))
    return {
        "valid_plain": good,
        "valid_gzip": gzip.compress(good, mtime=0),
        "valid_pax": tar_of(("d/a", plain, b"abc"), form=tarfile.PAX_FORMAT),
        "hostile_parent": tar_of(("../x", plain, b"abc")),
        "hostile_inner_parent": tar_of(("d/../../x", plain, b"abc")),
        "hostile_absolute": tar_of(("/tmp/x", plain, b"abc")),
        "hostile_symlink": tar_of(("a", tarfile.SYMTYPE, b""), ("a/x", plain, b"abc"), link="/tmp"),
        "hostile_hardlink": tar_of(("a", tarfile.LNKTYPE, b""), link="/etc/passwd"),
        "hostile_device": tar_of(("a", tarfile.CHRTYPE, b"")),
        "hostile_fifo": tar_of(("a", tarfile.FIFOTYPE, b"")),
        "hostile_twice": tar_of(("a", plain, b"x"), ("a", plain, b"y")),
        "hostile_file_and_folder": tar_of(("a", plain, b"x"), ("a/b", plain, b"y")),
        "hostile_deep": tar_of(("a/" * 40 + "x", plain, b"y")),
        "hostile_cut": good[:1500],
        "hostile_checksum": good[:3] + b"x" + good[4:],
        "hostile_escape": tar_of(("a\x1b[2J", plain, b"x")),
        "hostile_gzip_tail": gzip.compress(good + bytes(4 << 20), mtime=0),
    }


def sketch() -> dict[str, bytes]:
    def of(rows: list[list[float]], known: list[float], **changes: float) -> bytes:
        fields = {
            "version": 2, "type": 4, "dimension": 3, "size": 2, "start_size": 2, "max_size": 0, "smallest_size": 0,
            "kept": len(known), "filled": len(rows), "rows_seen": len(rows), "shrinks": 0,
            "alpha": 1.0, "buffer": 2.0, "epsilon": 0.0, "error_bound": 0.0, "squared_norm": 1.0,
        }  # fmt: skip
        fields |= changes
        values = list(fields.values())
        header = b"SAGE-FD\n" + struct.pack("<11q5d", *values)
        return header + struct.pack(f"<{len(known)}d", *known) + b"".join(struct.pack("<3f", *row) for row in rows)

    one = [[1.0, 0.0, 0.0]]
    return {
        "valid_empty": of([], []),
        "valid_rows": of([[1.0, 0.0, 0.0], [0.0, 2.0, 0.5]], [1.0]),
        "valid_grown": of(one, [1.0], size=4, max_size=8, epsilon=0.1),
        "hostile_huge": of([], [], dimension=2**40, size=2**40, start_size=2**40),
        "hostile_negative": of(one, [1.0], filled=-1),
        "hostile_type": of(one, [1.0], type=-4),
        "valid_alpha": of(one, [1.0], alpha=0.5),
        "hostile_alpha": of(one, [1.0], alpha=float("nan")),
        "hostile_buffer": of(one, [1.0], buffer=float("nan")),
        "hostile_bound": of(one, [1.0], error_bound=float("inf")),
        "hostile_known": of(one, [float("nan")]),
        "hostile_rows": of([[float("inf"), 0.0, 0.0]], [1.0]),
        "hostile_grown": of(one, [1.0], size=2**30, start_size=2),
        "hostile_cut": of(one, [1.0])[:-4],
    }


def metrics() -> dict[str, bytes]:
    use = {"seconds": 1.5, "calls": 3, "host_peak_bytes": 10, "device_peak_bytes": 0}
    epoch = {
        "epoch": 1, "steps": 10, "examples_seen": 640, "learning_rate": 0.1, "seconds": 2.5,
        "train": {"loss": 1.0, "accuracy": 0.5}, "validation": None, "test": {"loss": None, "accuracy": 0.5},
        "ranks": [{"rank": 0, "host_peak_bytes": 10, "device_peak_bytes": 0, "phases": {"forward": use}}],
    }  # fmt: skip
    selection = {
        "epoch": 1, "round": 1, "method": "sage", "candidates": 100, "kept": 25, "seconds": 0.5,
        "phase_seconds": {"sketch": 0.1}, "relative_certificate": 0.1, "overlap": None, "noise_rate": None,
        "wrong_labels_kept": 3,
    }  # fmt: skip

    def of(epochs: list[object], selections: list[object]) -> bytes:
        return json.dumps({"summary": {}, "versions": {"sage": "1"}, "selections": selections, "epochs": epochs}).encode()

    return {
        "valid_one": of([epoch], [selection]),
        "valid_two": of([epoch, epoch | {"epoch": 2}], []),
        "hostile_order": of([epoch, epoch], []),
        "hostile_float": of([epoch | {"steps": 1e300}], []),
        "hostile_negative": of([epoch | {"epoch": -1}], []),
        "hostile_rank": of([epoch | {"ranks": [{"rank": 2**40}]}], []),
        "hostile_phases": of([epoch | {"ranks": [epoch["ranks"][0] | {"phases": [1]}]}], []),
        "hostile_deep": b'{"epochs":' + b"[" * 600 + b"]" * 600 + b"}",
        "hostile_cut": of([epoch], [selection])[:-30],
        "hostile_list": b"[]",
    }


# Pictures of 12 x 9 pixels that libjpeg-turbo has written: grey, progressive, CMYK.
GREY_JPEG = base64.b64decode(
    "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDACgcHiMeGSgjISMtKygwPGRBPDc3PHtYXUlkkYCZlo+AjIqgtObDoKrarYqMyP/L2u71////m8H////6"
    "/+b9//j/wAALCAAJAAwBAREA/8QAFgABAQEAAAAAAAAAAAAAAAAABAID/8QAIBAAAQMDBQEAAAAAAAAAAAAAAQADBBESMQU0QWGCsv/aAAgBAQAA"
    "PwDKE1hKkzxDcDQaDhtqTfSnWFMLhD1Lfu+fkL//2Q=="
)
PROGRESSIVE_JPEG = base64.b64decode(
    "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAFA3PEY8MlBGQUZaVVBfeMiCeG5uePWvuZHI////////////////////////////////////////////"
    "////////2wBDAVVaWnhpeOuCguv/////////////////////////////////////////////////////////////////////////wgARCAAJAAwD"
    "ASIAAhEBAxEB/8QAFQABAQAAAAAAAAAAAAAAAAAAAgH/xAAUAQEAAAAAAAAAAAAAAAAAAAAA/9oADAMBAAIQAxAAAAEuE//EABgQAAMBAQAAAAAA"
    "AAAAAAAAAAABAhEy/9oACAEBAAEFAkOsEV1//8QAFBEBAAAAAAAAAAAAAAAAAAAAAP/aAAgBAwEBPwF//8QAFBEBAAAAAAAAAAAAAAAAAAAAAP/a"
    "AAgBAgEBPwF//8QAFBABAAAAAAAAAAAAAAAAAAAAIP/aAAgBAQAGPwIf/8QAGBABAQADAAAAAAAAAAAAAAAAEQABEDH/2gAIAQEAAT8hxkg69L//"
    "2gAMAwEAAgADAAAAEKP/xAAUEQEAAAAAAAAAAAAAAAAAAAAA/9oACAEDAQE/EH//xAAUEQEAAAAAAAAAAAAAAAAAAAAA/9oACAECAQE/EH//xAAZ"
    "EAACAwEAAAAAAAAAAAAAAAAAARAxsRH/2gAIAQEAAT8QNSFq7ccmI//Z"
)
CMYK_JPEG = base64.b64decode(
    "/9j/7gAOQWRvYmUAZAAAAAAA/9sAQwCgbniMeGSgjIKMtKqgvvD///Dc3PD/////////////////////////////////////////////////////"
    "/////8AAFAgACQAMBEMRAE0RAFkRAEsRAP/EABcAAQEBAQAAAAAAAAAAAAAAAAADAgH/xAAcEAEAAQQDAAAAAAAAAAAAAAAAAQIDEYESM7H/2gAO"
    "BEMATQBZAEsAAD8Asss5RADVVzhOMZ2AUAMXeydeQ//Z"
)


def png_file(width: int, height: int, kind: int, rows: bytes, *extra: tuple[bytes, bytes], depth: int = 8) -> bytes:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    middle = b"".join(chunk(name, data) for name, data in extra)
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + middle + chunk(b"IDAT", zlib.compress(rows))
            + chunk(b"IEND", b""))  # fmt: skip


def image() -> dict[str, bytes]:
    rgb = png_file(2, 2, 2, b"\0abcdef\0ghijkl")
    turned = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    exif = b"\xff\xe1" + struct.pack(">H", len(turned) + 8) + b"Exif\0\0" + turned
    size = GREY_JPEG.index(b"\xff\xc0") + 5
    return {
        "valid_grey_jpeg": b"\0" + GREY_JPEG,
        "valid_progressive_jpeg": b"\1" + PROGRESSIVE_JPEG,
        "valid_cmyk_jpeg": b"\3" + CMYK_JPEG,
        "valid_turned_jpeg": b"\0" + GREY_JPEG[:2] + exif + GREY_JPEG[2:],
        "valid_rgb_png": b"\0" + rgb,
        "valid_palette_png": b"\2" + png_file(2, 1, 3, b"\0\0\1", (b"PLTE", b"abcdef"), (b"tRNS", b"\x80")),
        "valid_turned_png": b"\0" + png_file(2, 1, 0, b"\0ab", (b"eXIf", turned)),
        "valid_bits_png": b"\0" + png_file(9, 1, 0, b"\0\xaa\x80", depth=1),
        "hostile_empty": b"\0",
        "hostile_gif": b"\0GIF89a",
        "hostile_cut_jpeg": b"\0" + GREY_JPEG[: -len(GREY_JPEG) // 8],
        "hostile_cut_png": b"\0" + rgb[:-20],
        "hostile_large_jpeg": b"\0" + GREY_JPEG[:size] + b"\x80\0\x80\0" + GREY_JPEG[size + 4 :],
        "hostile_large_png": b"\0" + png_file(60000, 60000, 2, b""),
        "hostile_no_rows_png": b"\0" + png_file(2, 2, 2, b"\0abc"),
        "hostile_no_palette_png": b"\0" + png_file(2, 1, 3, b"\0\0\1"),
    }


def packed() -> dict[str, bytes]:
    def of(records: list[tuple[bytes, int]], index: object = None, trailer: object = None, **changes: object) -> bytes:
        """`index` and `trailer` change the numbers before they are packed."""
        body, names, entries = b"SAGEPACK", b"", []
        for content, label in records:
            entry = [len(body), len(names), len(content), crc32c(content), 3, label]
            entries.append(index(entry) if index else entry)
            body += content
            names += b"a/b"
        metadata = {"version": 1, "name": "image_folder", "kind": "decoded", "channels": 1, "height": 1, "width": 2,
                    "margin": 1.0, "train": len(records) - 1, "test": 1, "class_names": ["a", "b"], "mean": [0.5],
                    "deviation": [0.25]}  # fmt: skip
        text = json.dumps(metadata | changes).encode()
        places = [len(entries), len(body), len(body) + 32 * len(entries), len(body) + 32 * len(entries) + len(names)]
        if trailer:
            places = trailer(places)
        table = b"".join(struct.pack("<2Q4I", *entry) for entry in entries)
        end = struct.pack("<4Q4I", *places, crc32c(table), crc32c(names), crc32c(text), 0) + b"SAGPACK1"
        return body + table + names + text + end + struct.pack("<II", crc32c(end), 0)

    two = [(b"\1\2", 0), (b"\3\4", 1)]
    encoded = {"kind": "encoded", "channels": 3, "height": 8, "width": 8, "mean": [0.5] * 3, "deviation": [0.2] * 3}
    return {
        "valid_decoded": of(two),
        "valid_encoded": of([(GREY_JPEG, 0), (b"no image", 1)], **encoded),
        "valid_left_out": of([(b"", 0), (b"\3\4", 1)]),
        "hostile_empty": b"",
        "hostile_magic": b"x" + of(two)[1:],
        "hostile_cut": of(two)[:-1],
        "hostile_label": of([(b"\1\2", 0), (b"\3\4", 2)]),
        "hostile_size": of([(b"\1\2\3", 0), (b"\3\4", 1)]),
        "hostile_offset": of(two, index=lambda entry: [2**63, *entry[1:]]),
        "hostile_bytes": of(two, index=lambda entry: [*entry[:2], 2**32 - 1, *entry[3:]]),
        "hostile_name": of(two, index=lambda entry: [entry[0], 2**64 - 2, *entry[2:]]),
        "hostile_records": of(two, trailer=lambda places: [2**59, *places[1:]]),
        "hostile_index": of(two, trailer=lambda places: [places[0], 2**64 - 64, *places[2:]]),
        "hostile_overlap": of(two, trailer=lambda places: [*places[:3], places[2] - 1]),
        "hostile_count": of(two, train=2),
        "hostile_negative": of(two, train=-1, test=3),
        "hostile_huge": of(two, height=2**40),
        "hostile_channels": of(two, channels=2),
        "hostile_statistics": of(two, deviation=[0.0]),
        "hostile_infinite": of(two, mean=[1e300]),
        "hostile_kind": of(two, kind="zipped"),
        "hostile_classes": of(two, class_names=[]),
        "hostile_margin": of(two, margin=-1),
    }


for make in (safetensors, checkpoint_state, config, cifar, idx, human_labels, tar, sketch, metrics, image, packed):
    folder = here / "corpus" / make.__name__
    folder.mkdir(parents=True, exist_ok=True)
    for old in [path for kind in ("valid", "hostile", "edge") for path in folder.glob(f"{kind}_*")]:
        old.unlink()
    for name, content in make().items():
        (folder / name).write_bytes(content)
