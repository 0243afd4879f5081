"""Every layout's miniature tree maps to the right labels, traps included."""

import json

import numpy as np
import pytest
from PIL import Image

from tellsign.evaluation import layouts
from tellsign.evaluation.dataset import FAKE, REAL, TAMPERED, DataError, load


def tree(root, *files):
    """Files below a root: empty ones, or small pictures where the name has a size (`a.png:40x24`)."""
    for name in files:
        name, _, size = name.partition(":")
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if size:
            width, height = map(int, size.split("x"))
            Image.new("RGB", (width, height), (90, 120, 60)).save(path)
        else:
            path.touch()
    return root


def write(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(value if isinstance(value, str) else json.dumps(value))


def seen(dataset):
    return {(i.name, i.label, i.source) for i in dataset.items}


def subsets(dataset, label):
    return {i.name: i.subsets for i in dataset.items if i.label == label}


TREES = {
    "genimage": [
        "Midjourney/imagenet_midjourney/val/ai/1_mj.png",
        "Midjourney/imagenet_midjourney/val/nature/ILSVRC2012_val_1.JPEG",
        "Midjourney/imagenet_midjourney/train/ai/2_mj.png",
        "stable_diffusion_v_1_4/imagenet_ai_0419_sdv4/val/ai/s.png",
        "stable_diffusion_v_1_4/imagenet_ai_0419_sdv4/val/nature/ILSVRC2012_val_1.JPEG",
        "BigGAN/val/ai/b.png",
        "BigGAN/val/nature/n.JPEG",
    ],
    "forensynths": [
        "test/progan/cat/0_real/a.png",
        "test/progan/cat/1_fake/b.png",
        "test/progan/dog/1_fake/c.png",
        "test/CRN/0_real/d.png",
        "test/CRN/1_Fake/e.png",
        "train/progan/airplane/0_real/no.png",
    ],
    "univfd-diffusion": [
        "diffusion_datasets/guided/1_fake/a.png",
        "diffusion_datasets/ldm_200/1_fake/b.png",
        "diffusion_datasets/dalle/1_fake/c.png",
        "diffusion_datasets/imagenet/0_real/d.png",
        "diffusion_datasets/laion/0_real/e.png",
    ],
    "aigcdetect": [
        "progan/cat/0_real/a.png",
        "progan/cat/1_fake/b.png",
        "ADM/0_real/c.png",
        "ADM/1_fake/d.png",
        "DALLE2/0_real/e.png",
        "DALLE2/1_fake/f.png",
    ],
    "aigi-holmes": [
        "TestSet/FLUX/0_real/a.png",
        "TestSet/FLUX/1_fake/b.png",
        "TestSet/Janus-Pro-7B/0_real/c.png",
        "TestSet/Janus-Pro-7B/1_fake/d.png",
    ],
    "chameleon": ["Chameleon/test/0_real/a.jpg", "Chameleon/test/1_fake/b.jpg"],
    "wildrf": [
        "WildRF/test/facebook/0_real/a.jpg",
        "WildRF/test/facebook/1_fake/b.jpg",
        "WildRF/test/reddit/0_real/c.jpg",
        "WildRF/test/reddit/1_fake/d.jpg",
    ],
    "aigibench": ["SocialRF/0_real/a.jpg", "SocialRF/1_fake/b.jpg", "CommunityAI/1_fake/c.jpg"],
    "co-spy": ["lexica/0_real/a.jpg", "lexica/1_fake/b.jpg", "civitai/0_real/c.jpg", "civitai/1_fake/d.jpg"],
    "evalgen": ["OmniGen/1_fake/a.jpg", "Flux/1_fake/b.jpg"],
    "evalgen-folders": ["OmniGen/a.jpg", "Infinity/b.jpg", "NOVA/sub/c.jpg"],
    "synthbuster": ["dalle3/r1.png", "midjourney-v5/r1.png", "stable-diffusion-xl/r2.png"],
    "synthwildx-folders": ["firefly/0_real/a.jpg", "firefly/1_fake/b.jpg", "dalle3/1_fake/c.jpg"],
    "drct-2m": [
        "stable-diffusion-v1-4/val2017/000000000139.png",
        "stable-diffusion-v1-4/train2017/000000000009.png",
        "sdxl-turbo/val2017/000000000139.png",
        "MSCOCO/val2017/000000000139.jpg",
    ],
    "aigi-now": [
        "flux-dev/semantic/0_real/a.png",
        "flux-dev/semantic/1_fake/b.png",
        "flux-dev/pixel/1_fake/c.png",
        "jimeng/pixel/1_fake/d.png",
    ],
    "casia": [
        "Au/Au_cha_00063.jpg:20x16",
        "Tp/Tp_D_CRN_S_N_cha00063_art00014_11818.jpg:20x16",
        "Tp/Tp_S_NNN_S_N_ani00001_ani00001_00002.jpg:20x16",
        "CASIA 2 Groundtruth/Tp_D_CRN_S_N_cha00063_art00014_11818_gt.png:10x8",
    ],
    "columbia": [
        "4cam_auth/canong3_02_sub_01.tif:20x16",
        "4cam_splc/canong3_canonxt_sub_01.tif:20x16",
        "4cam_splc/edgemask/canong3_canonxt_sub_01_edgemask.jpg:20x16",
        "README.txt",
    ],
    "coverage": ["image/1.tif:8x8", "image/1t.tif:8x8", "mask/1forged.tif:8x8", "mask/1copy.tif:8x8"],
    "imd2020": [
        "1a07yi/1a07yi_orig.jpg:8x8",
        "1a07yi/c8swtoq_0.jpg:8x8",
        "1a07yi/c8swtoq_0_mask.png:8x8",
        "2bb/2bb_orig.jpg:8x8",
        "2bb/x_0.png:8x8",
    ],
    "imdl-folders": ["Tp/b.jpg:8x8", "Tp/a.jpg:8x8", "Gt/1.png:8x8", "Gt/2.png:8x8"],
    "tampcoco": [
        "cm_images/1.jpg:8x8",
        "cm_masks/1.png:8x8",
        "sp_images/7.jpg:8x8",
        "sp_masks/7.png:8x8",
    ],
    "coco-inpaint": [
        "images/original/000000000139.jpg:8x8",
        "images/modified/000000000139.png:8x8",
        "images/mask/000000000139.png:8x8",
    ],
    "dda-pairs": ["real/x.jpg:21x17", "fake/x.png:16x16", "real/y.jpg:40x33", "fake/y.png:40x32"],
    "pairs-below-names": ["kling/0_real/a.png", "kling/1_fake/b.png", "sora/clips/1_fake/c.png"],
    "plain": ["real/phone/a.png", "fake/b.png"],
    "gpt-imgeval": ["GPT-ImgEval/x/1.png", "GPT-ImgEval/2.png", "GPT-ImgEval/imagenet/3.jpg"],
}
LABELS = {
    "genimage": {
        ("Midjourney/imagenet_midjourney/val/ai/1_mj.png", FAKE, "Midjourney"),
        ("Midjourney/imagenet_midjourney/val/nature/ILSVRC2012_val_1.JPEG", REAL, "ImageNet"),
        ("stable_diffusion_v_1_4/imagenet_ai_0419_sdv4/val/ai/s.png", FAKE, "Stable Diffusion V1.4"),
        ("stable_diffusion_v_1_4/imagenet_ai_0419_sdv4/val/nature/ILSVRC2012_val_1.JPEG", REAL, "ImageNet"),
        ("BigGAN/val/ai/b.png", FAKE, "BigGAN"),
        ("BigGAN/val/nature/n.JPEG", REAL, "ImageNet"),
    },
    "forensynths": {
        ("test/progan/cat/0_real/a.png", REAL, "progan"),
        ("test/progan/cat/1_fake/b.png", FAKE, "progan"),
        ("test/progan/dog/1_fake/c.png", FAKE, "progan"),
        ("test/CRN/0_real/d.png", REAL, "CRN"),
        ("test/CRN/1_Fake/e.png", FAKE, "CRN"),
    },
    "aigibench": {
        ("SocialRF/0_real/a.jpg", REAL, "SocialRF"),
        ("SocialRF/1_fake/b.jpg", FAKE, "SocialRF"),
        ("CommunityAI/1_fake/c.jpg", FAKE, "CommunityAI"),
    },
    "synthbuster": {
        ("dalle3/r1.png", FAKE, "dalle3"),
        ("midjourney-v5/r1.png", FAKE, "midjourney-v5"),
        ("stable-diffusion-xl/r2.png", FAKE, "stable-diffusion-xl"),
    },
    "drct-2m": {
        ("stable-diffusion-v1-4/val2017/000000000139.png", FAKE, "stable-diffusion-v1-4"),
        ("sdxl-turbo/val2017/000000000139.png", FAKE, "sdxl-turbo"),
        ("MSCOCO/val2017/000000000139.jpg", REAL, "MSCOCO"),
    },
    "casia": {
        ("Au/Au_cha_00063.jpg", REAL, "CASIA Au"),
        ("Tp/Tp_D_CRN_S_N_cha00063_art00014_11818.jpg", FAKE, "splicing"),
        ("Tp/Tp_S_NNN_S_N_ani00001_ani00001_00002.jpg", FAKE, "copy-move"),
    },
    "coverage": {("image/1.tif", REAL, "COVERAGE"), ("image/1t.tif", FAKE, "copy-move")},
    "columbia": {
        ("4cam_auth/canong3_02_sub_01.tif", REAL, "Columbia"),
        ("4cam_splc/canong3_canonxt_sub_01.tif", FAKE, "splicing"),
    },
    "imd2020": {
        ("1a07yi/1a07yi_orig.jpg", REAL, "IMD2020"),
        ("1a07yi/c8swtoq_0.jpg", FAKE, "real life"),
        ("2bb/2bb_orig.jpg", REAL, "IMD2020"),
        ("2bb/x_0.png", FAKE, "real life"),
    },
    "plain": {("real/phone/a.png", REAL, "phone"), ("fake/b.png", FAKE, "fake")},
    "gpt-imgeval": {("x/1.png", FAKE, "GPT-4o"), ("2.png", FAKE, "GPT-4o"), ("imagenet/3.jpg", REAL, "imagenet")},
    "aigi-now": {
        ("flux-dev/semantic/0_real/a.png", REAL, "reals of flux-dev"),
        ("flux-dev/semantic/1_fake/b.png", FAKE, "flux-dev"),
        ("flux-dev/pixel/1_fake/c.png", FAKE, "flux-dev"),
        ("jimeng/pixel/1_fake/d.png", FAKE, "jimeng"),
    },
}
INSIDE = {"gpt-imgeval": "GPT-ImgEval", "chameleon": "Chameleon", "wildrf": "WildRF"}
REALS_IN_NAME = ("0_real", "real/", "nature", "Au", "4cam_auth", "_orig", "original", "MSCOCO", "imagenet", "laion")


@pytest.mark.parametrize("name", TREES)
def test_a_miniature_tree_is_recognised_and_mapped(name, tmp_path):
    root = tree(tmp_path / "data", *TREES[name])
    dataset = load(root / INSIDE.get(name, "."))
    assert dataset.layout == name
    if name in LABELS:
        assert seen(dataset) == LABELS[name]
    elif name not in ("imdl-folders", "tampcoco"):
        for item in dataset.items:
            assert item.label == (REAL if any(w in item.name for w in REALS_IN_NAME) else FAKE), item.name
    assert all(item.path.is_file() for item in dataset.items)
    assert dataset.asks == (TAMPERED if name in ("casia", "columbia", "coverage", "imd2020") else dataset.asks)
    assert load(root / INSIDE.get(name, "."), layout=name).items == dataset.items


def test_every_layout_has_a_miniature_tree_or_a_test_of_its_own():
    by_file = {"manifest", "synthwildx", "grip-list", "bfree-online", "bfree-folders", "imdl-json", "x-aigd-json"}
    by_file |= {"synthscars", "loki", "sharegpt-4o-image"}
    parquet = {"opensdi", "community-forensics", "x-aigd", "image-label-parquet"}
    assert {layout.name for layout in layouts.LAYOUTS} == set(TREES) | by_file | parquet
    assert all(layout.known in ("published", "second-hand", "from memory") for layout in layouts.LAYOUTS)


def test_genimage_splits_groups_and_the_order_of_the_alphabet(tmp_path):
    root = tree(tmp_path, *TREES["genimage"])
    dataset = load(root, layout="genimage")
    assert dataset.split == "val"
    copies = [i.group for i in dataset.items if i.name.endswith("ILSVRC2012_val_1.JPEG")]
    assert copies == ["imagenet/ILSVRC2012_val_1"] * 2  # one ImageNet picture that serves two generators
    with pytest.raises(DataError, match=r"split train of .* holds no real"):
        load(root, split="train")
    flat = tree(tmp_path / "flat", "imagenet_ai_0508_adm/val/ai/a.png", "imagenet_ai_0508_adm/val/nature/b.png")
    assert seen(load(flat)) == {
        ("imagenet_ai_0508_adm/val/ai/a.png", FAKE, "ADM"),
        ("imagenet_ai_0508_adm/val/nature/b.png", REAL, "ImageNet"),
    }


def test_univfd_reals_serve_the_generators_that_the_authors_pair_them_with(tmp_path):
    dataset = load(tree(tmp_path, *TREES["univfd-diffusion"]))
    reals = subsets(dataset, REAL)
    assert reals["diffusion_datasets/imagenet/0_real/d.png"] == ("guided",)
    assert set(reals["diffusion_datasets/laion/0_real/e.png"]) == {"ldm_200", "dalle"}


def test_classes_of_one_generator_are_merged_and_told(tmp_path):
    dataset = load(tree(tmp_path, *TREES["forensynths"]))
    assert any(n.startswith("progan: 2 classes merged") for n in dataset.notes)
    assert set(dataset.subsets) == {"CRN", "progan"}


def test_fakes_only_sets_load_alone_and_with_reals(tmp_path):
    root = tree(tmp_path / "synthbuster", *TREES["synthbuster"])
    alone = load(root)
    assert alone.count(REAL) == 0
    assert any("--real FOLDER adds some" in n for n in alone.notes)
    both = load(root, reals=tree(tmp_path / "RAISE", "r1.tif", "r9.tif"))
    own = {i.name: i for i in both.items if i.label == REAL}
    assert set(own) == {"RAISE/r1.tif", "RAISE/r9.tif"}
    # r1 is the photograph that two of the fakes were made after: one group, and every row of the table.
    assert own["RAISE/r1.tif"].group == "raise/r1"
    assert own["RAISE/r9.tif"].group == "RAISE/r9.tif"
    assert set(own["RAISE/r1.tif"].subsets) == {"dalle3", "midjourney-v5", "stable-diffusion-xl"}
    with pytest.raises(DataError, match="--real must be a folder"):
        load(root, reals=root / "nothing")


@pytest.mark.parametrize(
    ("columns", "rows", "layout", "want"),
    [
        (
            "url,filename,typ",
            ["http://x,real/1.jpg,real", "http://y,dalle3/2.jpg,dalle3"],
            "synthwildx",
            {("real/1.jpg", REAL, "real"), ("dalle3/2.jpg", FAKE, "dalle3")},
        ),
        (
            "filename,typ",
            ["a.png,Real", "b.png,sdxl"],
            "grip-list",
            {("a.png", REAL, "Real"), ("b.png", FAKE, "sdxl")},
        ),
        (
            "filename,label,source_id,date,url",
            ["REAL/Ed/1.jpg,REAL,Ed,d,u", "FAKE/Fs/2.jpg,FAKE,Fs,d,u"],
            "bfree-online",
            {("REAL/Ed/1.jpg", REAL, "viral, real"), ("FAKE/Fs/2.jpg", FAKE, "viral, generated")},
        ),
    ],
)
def test_lists_of_grip(tmp_path, columns, rows, layout, want):
    write(tmp_path / "list.csv", "\n".join([columns, *rows, ""]))
    for data in (tmp_path, tmp_path / "list.csv"):
        dataset = load(data)
        assert dataset.layout == layout
        assert seen(dataset) == want


def test_copies_of_a_viral_picture_are_one_group(tmp_path):
    lines = ["filename,label,source_id", "REAL/a/1.jpg,REAL,a", "REAL/a/2.jpg,REAL,a", "FAKE/a/3.jpg,FAKE,a"]
    write(tmp_path / "v.csv", "\n".join(lines))
    assert [i.group for i in load(tmp_path / "v.csv").items] == ["REAL/a", "REAL/a", "FAKE/a"]


def test_imdl_pairs_by_sorted_order_and_refuses_a_gap(tmp_path):
    root = tree(tmp_path, *TREES["imdl-folders"])
    dataset = load(root)
    assert [(i.path.name, i.truth.path.name) for i in dataset.items] == [("a.jpg", "1.png"), ("b.jpg", "2.png")]
    assert dataset.asks == TAMPERED
    (root / "Gt" / "2.png").unlink()
    with pytest.raises(DataError, match=r"2 files in Tp/ and 1 in Gt/"):
        load(root)


def test_imdl_list_knows_negatives(tmp_path):
    write(tmp_path / "casia.json", [["Tp/a.jpg", "Gt/a.png"], ["Au/b.jpg", "Negative"]])
    dataset = load(tmp_path / "casia.json")
    assert dataset.layout == "imdl-json"
    assert [(i.name, i.label, i.mask) for i in dataset.items] == [("Tp/a.jpg", FAKE, True), ("Au/b.jpg", REAL, False)]
    write(tmp_path / "bad.json", [["Tp/a.jpg", "Gt/a.png"], ["Au/b.jpg"]])
    with pytest.raises(DataError, match="entry 1"):
        load(tmp_path / "bad.json")


def test_masks_that_lack_or_have_another_size_are_told(tmp_path):
    dataset = load(tree(tmp_path, *TREES["casia"]))
    assert any("1 tampered pictures have no mask" in n and "ani00001" in n for n in dataset.notes)
    assert any("1 masks have another size than their picture" in n for n in dataset.notes)
    groups = {i.name.split("/")[1][:6]: i.group for i in dataset.items}
    assert groups["Au_cha"] == groups["Tp_D_C"] == "casia/cha00063"
    by_name = {i.name: i.truth for i in dataset.items}
    spliced = by_name["Tp/Tp_D_CRN_S_N_cha00063_art00014_11818.jpg"]
    assert spliced.mask(16, 20).shape == (16, 20)
    assert not by_name["Au/Au_cha_00063.jpg"].mask(16, 20).any()


def test_columbias_masks_are_green_where_it_is_spliced(tmp_path):
    root = tree(tmp_path, *TREES["columbia"])
    pixels = np.zeros((16, 20, 3), np.uint8)
    pixels[:, :10], pixels[:, 10:] = (0, 200, 0), (200, 0, 0)
    Image.fromarray(pixels).save(root / "4cam_splc/edgemask/canong3_canonxt_sub_01_edgemask.jpg", quality=95)
    (spliced,) = [i for i in load(root).items if i.label == FAKE]
    mask = spliced.truth.mask(16, 20)
    assert mask[:, :8].all()
    assert not mask[:, 12:].any()


def test_tampcoco_masks_are_edited_above_one(tmp_path):
    root = tree(tmp_path, *TREES["tampcoco"])
    Image.fromarray(np.array([[0, 1, 2, 255]], np.uint8)).save(root / "cm_masks/1.png")
    item = next(i for i in load(root).items if i.name == "cm_images/1.jpg")
    assert item.truth.mask(1, 4).tolist() == [[False, False, True, True]]
    write(root / "cm_COCO_list.txt", "cm_images/1.jpg,cm_masks/1.png\n")
    listed = load(root)
    assert [(i.name, i.source, i.label) for i in listed.items] == [("cm_images/1.jpg", "copy-move", FAKE)]


def test_pairs_are_one_group_and_numbered_squares_are_not_pairs(tmp_path):
    pairs = load(tree(tmp_path / "dda", *TREES["dda-pairs"]))
    assert sorted(i.group for i in pairs.items) == ["pair/x", "pair/x", "pair/y", "pair/y"]
    squares = tree(tmp_path / "sq", "real/1.png:16x16", "fake/1.png:16x16", "real/2.png:16x16", "fake/2.png:16x16")
    assert load(squares).layout == "plain"
    write(squares / "quality.json", {"1": 90})
    assert load(squares).layout == "dda-pairs"


def test_synthscars_in_both_spellings_and_its_slips(tmp_path):
    entries = {
        "1": {
            "img_file_name": "a.png",
            "refs": [
                {"phrase": "hand", "explanation": "six fingers", "segmentation": [[2, 2, 6, 2, 6, 6, 2, 6]]},
                {"phrase": "line", "explanation": "", "segmentation": [[1, 1, 5, 5, 9, 9]]},
            ],
        },
        "2": {"img_file_name": "a.jpg", "refs": []},
    }
    for spelling in ("annotations", "annoations"):
        root = tree(tmp_path / spelling, "test/images/a.png:10x10", "test/images/a.jpg:20x20")
        write(root / "test" / spelling / "test.json", entries)
        dataset = load(root)
        assert dataset.layout == "synthscars"
        assert {i.label for i in dataset.items} == {FAKE}
        assert {i.group for i in dataset.items} == {"synthscars/a"}  # twins of one stem
        assert any(n.startswith("1 polygons") for n in dataset.notes)
        mask = next(i for i in dataset.items if i.mask).truth.mask(10, 10)
        assert mask[2:7, 2:7].all()
        assert mask.sum() == 25


def test_loki_turns_its_questions_into_labels(tmp_path):
    def ask(path, kind, answer, modality="image-text"):
        return {"image_path": path, "question_type": kind, "answer": answer, "modality": modality}

    rows = [
        ask("art/1.png", "ask_fake", "yes"),
        ask("art/1.png", "ask_real", "No"),
        ask("art/2.png", "ask_real", "Yes."),
        ask("art/3.png", "ask_fake", "no"),
        ask("clip.mp4", "ask_fake", "yes", "video-text"),
    ]
    write(tmp_path / "true_or_false.json", rows)
    write(tmp_path / "open_ended_vqa.json", [{"image_path": "art/1.png", "regions": [{"xywh": [1, 2, 3, 4]}]}])
    dataset = load(tmp_path)
    assert dataset.layout == "loki"
    assert {(i.name, i.label) for i in dataset.items} == {
        ("art/1.png", FAKE),
        ("art/2.png", REAL),
        ("art/3.png", REAL),
    }
    mask = next(i for i in dataset.items if i.label == FAKE).truth.mask(10, 10)
    assert mask.sum() == 12
    assert mask[2:6, 1:4].all()
    write(tmp_path / "true_or_false.json", [*rows, ask("art/2.png", "ask_fake", "yes")])
    with pytest.raises(DataError, match=r"art/2\.png is real by one question and fake by another"):
        load(tmp_path)


@pytest.mark.parametrize("suffix", ["json", "jsonl"])
def test_x_aigd_exports(tmp_path, suffix):
    rows = [
        {
            "image": "a.png",
            "generator": "sd3",
            "uid": "u1",
            "labels": [{"label": "low-level-texture", "points": [[0, 0], [3, 0], [3, 3], [0, 3]]}],
        },
        {"image": "b.png", "generator": "flux", "uid": "u2", "labels": []},
    ]
    text = json.dumps(rows) if suffix == "json" else "\n".join(map(json.dumps, rows))
    write(tmp_path / f"x.{suffix}", text)
    dataset = load(tmp_path / f"x.{suffix}")
    assert dataset.layout == "x-aigd-json"
    assert seen(dataset) == {("a.png", FAKE, "sd3"), ("b.png", FAKE, "flux")}
    first, second = (i.truth.mask(8, 8) for i in dataset.items)
    assert first.sum() == 16
    assert not second.any()


def test_sharegpt_reads_outputs_and_never_the_inputs_of_edits(tmp_path):
    write(tmp_path / "text_to_image.json", [{"input_prompt": "p", "output_image": "image/t2i_1.png"}])
    edit = {"input_image": ["image/in.png"], "output_image": "image/v2v_1.png"}
    write(tmp_path / "text_and_image_to_image.json", [edit])
    assert seen(load(tmp_path)) == {("image/t2i_1.png", FAKE, "GPT-4o"), ("image/v2v_1.png", FAKE, "GPT-4o")}


def test_manifests_in_json_lines(tmp_path):
    rows = [{"path": "a.png", "label": 0}, {"path": "b.png", "label": True, "generator": "sd", "mask": "m.png"}]
    write(tmp_path / "d.jsonl", "\n".join(map(json.dumps, rows)))
    dataset = load(tmp_path / "d.jsonl")
    assert seen(dataset) == {("a.png", REAL, "real"), ("b.png", FAKE, "sd")}
    assert [i.mask for i in dataset.items] == [False, True]
    write(tmp_path / "e.jsonl", '{"path": "a.png"\n')
    with pytest.raises(DataError, match="cannot be read as JSON lines"):
        load(tmp_path / "e.jsonl")


def test_a_folder_that_fits_two_layouts_says_which_and_how_to_name_one(tmp_path):
    root = tree(tmp_path, *TREES["columbia"], *TREES["coverage"])
    with pytest.raises(DataError) as caught:
        load(root)
    message = str(caught.value)
    assert "fits 2 layouts equally well" in message
    assert "columbia (Columbia) because of 4cam_auth and 4cam_splc" in message
    assert "--layout columbia or --layout coverage" in message
    assert load(root, layout="coverage").layout == "coverage"


def test_a_folder_that_fits_none_says_what_was_seen_and_what_came_near(tmp_path):
    root = tree(tmp_path, "holiday/a.jpg", "dalle3/b.png", "firefly/c.png", "notes.txt")
    with pytest.raises(DataError) as caught:
        load(root)
    message = str(caught.value)
    assert "it has dalle3/, firefly/, holiday/; 1 files .txt" in message
    assert "synthbuster was not taken: it has folders dalle3/, firefly/, but holiday/ not among its folders" in message
    assert "--layout NAME" in message
    assert len(load(root, layout="synthbuster").items) == 2


def test_a_layout_that_is_not_there_suggests_the_nearest(tmp_path):
    with pytest.raises(DataError, match=r"got 'genimagee'\. Did you mean genimage\?"):
        load(tree(tmp_path, *TREES["plain"]), layout="genimagee")


def test_classes_named_in_two_ways_are_not_guessed(tmp_path):
    root = tree(tmp_path, "a/0_real/1.png", "a/1_fake/2.png", "b/real/3.png", "b/fake/4.png")
    with pytest.raises(DataError, match="some classes are called real and fake instead"):
        load(root)


def test_folders_that_differ_by_case_only_are_refused(tmp_path):
    root = tree(tmp_path, "real/1.png", "Real/2.png", "fake/3.png")
    if len(list(root.iterdir())) < 3:
        pytest.skip("this file system does not tell cases apart")
    with pytest.raises(DataError, match="differ by case only"):
        load(root)


def test_what_archivers_leave_behind_is_no_data(tmp_path):
    root = tree(tmp_path, *TREES["plain"], "__MACOSX/real/._a.png", "real/Thumbs.db", "fake/.DS_Store", "fake/odd.txt")
    assert {i.name for i in load(root).items} == {"real/phone/a.png", "fake/b.png", "fake/odd.txt"}


def test_benchmarks_that_only_look_alike_fall_to_the_common_shape(tmp_path):
    # Only names that ForenSynths and AIGCDetectBenchmark share: neither can be told, and both read the same.
    root = tree(tmp_path, "progan/cat/0_real/a.png", "progan/cat/1_fake/b.png", "biggan/1_fake/c.png")
    dataset = load(root)
    assert dataset.layout == "pairs-below-names"
    assert {i.source for i in dataset.items} == {"progan", "biggan"}


def test_a_split_of_a_data_set_without_splits(tmp_path):
    with pytest.raises(DataError, match="has no split val"):
        load(tree(tmp_path, *TREES["wildrf"]) / "WildRF", split="val")
    with pytest.raises(DataError, match=r"Columbia .* has none"):
        load(tree(tmp_path / "c", *TREES["columbia"]), split="val")


def test_rows_of_a_table_hold_at_most_so_many(tmp_path):
    files = [f"{g}/{side}/{n}.png" for g in ("kling", "sora") for side in ("0_real", "1_fake") for n in range(9)]
    dataset = load(tree(tmp_path, *files), per_subset=4, seed=3)
    counts = {(s, i.label) for i in dataset.items for s in i.subsets}
    assert counts == {(g, y) for g in ("kling", "sora") for y in (0, 1)}
    assert len(dataset.items) == 16
    assert dataset == load(tmp_path, per_subset=4, seed=3)
    assert dataset != load(tmp_path, per_subset=4, seed=4)


def test_bfree_folders_go_by_their_name(tmp_path):
    root = tree(tmp_path / "B-Free" / "BFree-Online", "0_real/a.jpg", "1_fake/b.jpg")
    assert load(root).layout == "bfree-folders"


def test_the_documentation_says_of_every_layout_how_certain_it_is():
    import re
    from pathlib import Path

    page = Path(__file__).parents[2] / "docs" / "evaluation.md"
    rows = [re.match(r"\| (`.*?) \| .* \| (\S.*) \|$", line) for line in page.read_text(encoding="utf-8").splitlines()]
    known = {name: row[2] for row in rows if row for name in re.findall(r"`([^`]+)`", row[1])}
    for layout in layouts.LAYOUTS:
        assert known.get(layout.name) in (layout.known, "-"), layout.name
