"""Small stand-ins for what the documents' commands need: pictures, networks, folders in the layouts that they name."""

import csv
import json
import runpy

import numpy as np
from blocks import ROOT

photograph = runpy.run_path(str(ROOT / ".ci" / "photo.py"))["photograph"]

CROPS = (
    "crop,thumb,label,source,family,content,group,original_format,original_width,original_height,crop_x,crop_y,split"
)


def picture(path, seed, size=(240, 200)):
    """One drawn picture, saved under the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    options = {"quality": 90} if path.suffix == ".jpg" else {}
    photograph(*size, seed=seed).save(path, **options)
    return path


def labelled(folder, each, size=(240, 200), first=0):
    """real/ and fake/ with so many pictures each, which nothing tells apart."""
    return [
        (picture(folder / side / f"{n}.jpg", first + 1000 * label + n, size), label)
        for label, side in enumerate(("real", "fake"))
        for n in range(each)
    ]


def table(path, pictures, **columns):
    """A CSV of (picture, label) with further columns, each a function of the row's number and label."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label", *columns])
        for n, (picture_path, label) in enumerate(pictures):
            writer.writerow(
                [picture_path.relative_to(path.parent), label, *(column(n, label) for column in columns.values())]
            )
    return path


def scores(path, pictures):
    """Another detector's answers, at random."""
    rng = np.random.default_rng(0)
    lines = [f"{p.relative_to(path.parent / 'DATA')},{rng.random():.3f}" for p, _ in pictures]
    path.write_text("path,score\n" + "\n".join(lines) + "\n")


def autoencoder(folder, name="taesd"):
    """A tiny network in the layout of the published ones; it halves and doubles."""
    import torch
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    made = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(shape, generator=made) * 0.1

    ends = {
        "encoder": {"0.weight": draw(8, 3, 3, 3), "0.bias": draw(8), "1.weight": draw(4, 8, 3, 3)},
        "decoder": {"1.weight": draw(8, 4, 3, 3), "1.bias": draw(8), "4.weight": draw(3, 8, 3, 3), "4.bias": draw(3)},
    }
    for end, state in ends.items():
        save_file(state, folder / f"{name}_{end}.safetensors")


def network(file, nodes, inputs, kind):
    """An ONNX file of (operator, inputs, outputs, attributes), which takes pictures and gives `out`."""
    import pytest

    onnx = pytest.importorskip("onnx", reason="the extra `convert` is not installed")
    pytest.importorskip("onnxruntime", reason="the extra `forge` is not installed")
    element = getattr(onnx.TensorProto, kind)
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node(*node[:3], **node[3]) for node in nodes],
        "tiny",
        [
            onnx.helper.make_tensor_value_info(name, element, ["b", channels, "h", "w"])
            for name, channels in inputs.items()
        ],
        [onnx.helper.make_tensor_value_info("out", element, None)],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(model, file)


def migan(file):
    """A network with MI-GAN's inputs that fills with black."""
    network(file, [("Min", ["picture", "mask"], ["out"], {})], {"picture": 3, "mask": 1}, "UINT8")


def doubler(file):
    """A network that makes four pixels of each."""
    nodes = [
        ("Concat", ["picture"] * 4, ["four"], {"axis": 1}),
        ("DepthToSpace", ["four"], ["out"], {"blocksize": 2}),
    ]
    network(file, nodes, {"picture": 3}, "FLOAT")


def shared(folder, sources, each=2, size=(340, 330)):
    """data/ with its tables: `sources` are (label, name, split), `each` pictures of a source, or so many by split."""
    data, lines = folder / "data", [CROPS]
    splits = {s: {"real": [], "fake": []} for s in ("fit", "fuse", "user", "test")}
    for label, source, split in sources:
        splits[split]["fake" if label else "real"].append(source)
        for i in range(each if isinstance(each, int) else each[split]):
            path = picture(data / "crop" / source / f"{i}.png", len(lines), size)
            about = f"{label},{source},{source},photo,{source}/{i},PNG,{size[0]},{size[1]},0,0,{split}"
            lines.append(f"{path.relative_to(data)},t,{about}")
    (data / "manifest.csv").write_text("\n".join(lines) + "\n")
    (data / "splits.json").write_text(json.dumps(splits))
    return folder


def x_aigd(folder):
    """X-AIGD as the hub has it: one marked picture and one without artifacts."""
    import pytest

    pyarrow = pytest.importorskip("pyarrow", reason="the extra parquet is not installed")
    parquet = pytest.importorskip("pyarrow.parquet")
    folder.mkdir()
    box = [[10.0, 10.0], [60.0, 10.0], [60.0, 60.0], [10.0, 60.0]]
    files = [picture(folder.parent / "annotated" / f"{n}.png", 500 + n) for n in range(2)]
    columns = {
        "image": [{"bytes": file.read_bytes(), "path": file.name} for file in files],
        "generator": ["sd3", "sd3"],
        "uid": ["0", "1"],
        "labels": [[{"label": "low-level-texture", "points": box}], []],
        "width": [240, 240],
        "height": [200, 200],
    }
    parquet.write_table(pyarrow.table(columns), folder / "labeled_test-00000-of-00001.parquet")


def whole(folder):
    """Whole pictures beside none: a table without rows."""
    folder.mkdir()
    (folder / "manifest.csv").write_text("row,path,label,source,content,split,repo,original\n")
