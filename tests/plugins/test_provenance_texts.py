"""What generators leave in files, as each writes it, and what only looks like it."""

import json

import pytest
from provenance_files import (
    DESCRIPTION,
    EDITED,
    GENERATED,
    GRAPH,
    INFOTEXT,
    MAKE,
    MAKER_NOTE,
    MODEL,
    SOFTWARE,
    UPSCALE,
    USER_COMMENT,
    exif,
    png,
    saved,
    source_type,
    user_comment,
    with_xmp,
    xmp,
)

UUID = "a7421d2f-b262-44f9-977c-ac23e9c7d3e3"
INVOKE = {"positive_prompt": "a fox", "seed": 5, "model": {"name": "dreamshaper", "hash": "x"}, "app_version": "4.2.0"}
SD_METADATA = {
    "model_weights": "stable-diffusion-1.5",
    "app_version": "2.3",
    "image": {"prompt": [{"prompt": "a fox", "weight": 1}], "seed": 5},
}
FOOOCUS = {"base_model": "juggernaut", "prompt": "a fox", "seed": "5", "version": "Fooocus v2.3.1"}
SWARM = {"sui_image_params": {"prompt": "a fox", "model": "flux", "seed": 5, "swarm_version": "0.9"}}
DRAW = {"c": "a fox", "model": "sdxl.ckpt", "sampler": "Euler A", "seed": 5}
EASY = {"use_stable_diffusion_model": "sd-v1-4", "prompt": "a fox", "seed": "5"}
AIGC = {"AIGC": {"Label": "1", "ContentProducer": "Acme Cloud", "ProduceID": "x1"}}
DRAWN = {"nodes": [{"type": "KSampler"}, {"type": "VAEDecode"}], "links": []}


def webui(more=""):
    return INFOTEXT.format(more)


FILES = {
    "web UI, PNG": (lambda: png({"parameters": webui(", Version: v1.6.0")}), "Stable Diffusion web UI"),
    "web UI, JPEG": (
        lambda: saved("JPEG", exif=exif(sub={USER_COMMENT: user_comment(webui())})),
        "Stable Diffusion web UI",
    ),
    "web UI, WebP": (
        lambda: saved("WEBP", exif=exif(sub={USER_COMMENT: user_comment(webui())})),
        "Stable Diffusion web UI",
    ),
    "SD.Next": (lambda: png({"parameters": webui(", App: SD.Next, Version: 6fe5b1e")}), "SD.Next"),
    "Forge": (lambda: png({"parameters": webui(", Version: f2.0.1v1.10.1")}), "Stable Diffusion WebUI Forge"),
    "Civitai": (
        lambda: saved(
            "JPEG", exif=exif(sub={USER_COMMENT: user_comment(webui(', Civitai resources: [{"type":"x"}]'))})
        ),
        "Civitai",
    ),
    "Fooocus as text": (lambda: png({"parameters": webui(", Version: Fooocus v2.1.8")}), "Fooocus"),
    "Fooocus as JSON": (lambda: png({"parameters": json.dumps(FOOOCUS), "fooocus_scheme": "fooocus"}), "Fooocus"),
    "Fooocus, JPEG": (
        lambda: saved(
            "JPEG",
            exif=exif(
                {SOFTWARE: "Fooocus v2.3.1"}, {USER_COMMENT: user_comment(json.dumps(FOOOCUS)), MAKER_NOTE: b"fooocus"}
            ),
        ),
        "Fooocus",
    ),
    "ComfyUI": (lambda: png({"prompt": json.dumps(GRAPH), "workflow": json.dumps(DRAWN)}), "ComfyUI"),
    "ComfyUI, workflow only": (lambda: png({"workflow": json.dumps(DRAWN)}), "ComfyUI"),
    "ComfyUI, WebP": (
        lambda: saved("WEBP", exif=exif({MODEL: "prompt:" + json.dumps(GRAPH), MAKE: "workflow:{}"})),
        "ComfyUI",
    ),
    "InvokeAI 3": (lambda: png({"invokeai_metadata": json.dumps(INVOKE)}), "InvokeAI"),
    "InvokeAI 2": (lambda: png({"sd-metadata": json.dumps(SD_METADATA), "Dream": '"a fox" -s 50 -S 5'}), "InvokeAI"),
    "InvokeAI 1": (lambda: png({"Dream": '"a fox" -s50 -S5 -W512 -H512 -C7.5 -Ak_lms'}), "InvokeAI"),
    "SwarmUI": (lambda: png({"parameters": json.dumps(SWARM)}), "SwarmUI"),
    "NovelAI": (
        lambda: png(
            {
                "Software": "NovelAI",
                "Source": "Stable Diffusion XL 7BCCAA2C",
                "Comment": json.dumps({"prompt": "a fox", "seed": 5}),
            }
        ),
        "NovelAI",
    ),
    "Midjourney": (
        lambda: png({"Description": f"a fox --ar 2:1 --v 6 Job ID: {UUID}", "Author": "someone"}),
        "Midjourney",
    ),
    "DALL-E 2": (
        lambda: saved(
            "JPEG",
            exif=exif(
                sub={
                    USER_COMMENT: b"ASCII\x00\x00\x00Made with OpenAI Labs",
                    MAKER_NOTE: b"OpenAI--ImageGeneration--generation-Ctof",
                }
            ),
        ),
        "OpenAI",
    ),
    "Easy Diffusion": (lambda: png(EASY), "Easy Diffusion"),
    "Draw Things": (
        lambda: with_xmp(
            xmp(f"<exif:UserComment><rdf:Alt><rdf:li>{json.dumps(DRAW)}</rdf:li></rdf:Alt></exif:UserComment>")
        ),
        "Draw Things",
    ),
    "AIGC label": (lambda: png({"AIGC": json.dumps(AIGC["AIGC"])}), "Acme Cloud"),
    "AIGC label, EXIF": (
        lambda: saved("JPEG", exif=exif(sub={USER_COMMENT: user_comment(json.dumps(AIGC))})),
        "Acme Cloud",
    ),
    "Gemini's credit": (lambda: with_xmp(xmp(attributes='photoshop:Credit="Made with Google AI"')), "Google AI"),
    "Firefly's name": (
        lambda: with_xmp(xmp(attributes='xmp:CreatorTool="Adobe Firefly 2.0"'), "JPEG"),
        "Adobe Firefly",
    ),
    "Ideogram's make": (lambda: saved("JPEG", exif=exif({MAKE: "Ideogram AI"})), "Ideogram"),
}
XMP = {name for name, (make, _) in FILES.items() if name in ("Draw Things", "Gemini's credit", "Firefly's name")}


def needs_xmp(name):
    if name in XMP:
        pytest.importorskip("defusedxml", reason="XMP needs the extra provenance")


@pytest.mark.parametrize("name", FILES)
def test_what_each_program_writes_is_an_unsigned_claim_of_generation(look, name):
    needs_xmp(name)
    make, generator = FILES[name]
    claim = next(e for e in look(make()) if e.kind == "provenance" and e.meaning == "generated")
    assert (claim.generator, claim.verification, claim.signer) == (generator, "unverified", "")


@pytest.mark.parametrize(
    ("name", "model", "prompt", "seed"),
    [
        ("web UI, PNG", "v1-5, pruned", "a lighthouse, at night", "12345"),
        ("web UI, JPEG", "v1-5, pruned", "a lighthouse, at night", "12345"),
        ("web UI, WebP", "v1-5, pruned", "a lighthouse, at night", "12345"),
        ("Fooocus as JSON", "juggernaut", "a fox", "5"),
        ("ComfyUI", "sdxl.safetensors", "a red barn", "77"),
        ("ComfyUI, WebP", "sdxl.safetensors", "a red barn", "77"),
        ("InvokeAI 3", "dreamshaper", "a fox", "5"),
        ("InvokeAI 2", "stable-diffusion-1.5", "a fox", "5"),
        ("InvokeAI 1", "", "a fox", "5"),
        ("SwarmUI", "flux", "a fox", "5"),
        ("NovelAI", "Stable Diffusion XL 7BCCAA2C", "a fox", "5"),
        ("Midjourney", "v6", "a fox --ar 2:1 --v 6", ""),
        ("Easy Diffusion", "sd-v1-4", "a fox", "5"),
        ("Draw Things", "sdxl.ckpt", "a fox", "5"),
    ],
)
def test_model_prompt_and_seed_are_read_where_they_are_there(look, name, model, prompt, seed):
    needs_xmp(name)
    claim = next(e for e in look(FILES[name][0]()) if e.meaning == "generated")
    assert (claim.generator_model, claim.prompt, claim.seed) == (model, prompt, seed)


NOT_CLAIMS = {
    "a recipe": {"Comment": "Soup. Steps: 5, Serves: 4"},
    "steps without the rest": {"parameters": "Steps: 20"},
    "no number of steps": {"parameters": "Steps: many, Sampler: Euler, Seed: 1, CFG scale: 7"},
    "a title": {"Title": "AI generated image"},
    "an editor": {"Software": "GIMP 2.10"},
    "a description that names Midjourney": {"Description": "I do not like Midjourney"},
    "JSON that is no graph": {"prompt": '{"a": 1}', "workflow": '{"nodes": 3, "links": []}'},
    "a prompt in words": {"prompt": "what would you like to drink?"},
    "an empty object": {"invokeai_metadata": "{}", "parameters": "[]"},
    "deep JSON": {"prompt": "{" + '"a":[' * 50_000},
    "an AIGC label of suspicion": {"AIGC": '{"Label": "3"}'},
}


@pytest.mark.parametrize("name", NOT_CLAIMS)
def test_what_only_looks_like_it_claims_nothing(look, name):
    assert {getattr(e, "meaning", "other") for e in look(png(NOT_CLAIMS[name]))} == {"other"}


def test_a_graph_that_samples_nothing_only_says_that_it_processed(look):
    (claim,) = look(png({"prompt": json.dumps(UPSCALE)}))
    assert (claim.meaning, claim.generator) == ("other", "ComfyUI")
    assert "samples nothing" in claim.claim


def test_a_graph_whose_links_go_in_circles_ends(look):
    graph = {"1": {"class_type": "KSampler", "inputs": {"seed": 1, "positive": ["2", 0]}}}
    graph["2"] = {"class_type": "Join", "inputs": {"a": ["3", 0]}}
    graph["3"] = {"class_type": "Join", "inputs": {"a": ["2", 0]}}
    (claim,) = look(png({"prompt": json.dumps(graph)}))
    assert (claim.meaning, claim.prompt) == ("generated", "")


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("written", ["element", "attribute", "resource"])
@pytest.mark.parametrize(
    ("term", "meaning"),
    [
        (GENERATED, "generated"),
        (EDITED, "edited"),
        (GENERATED.replace("http:", "https:") + "/", "generated"),
        (GENERATED.rsplit("/", 1)[1], "generated"),
        (GENERATED.replace("trainedAlgorithmicMedia", "digitalCapture"), "captured"),
        (GENERATED.replace("trainedAlgorithmicMedia", "algorithmicMedia"), "other"),
        (GENERATED.replace("trainedAlgorithmicMedia", "compositeSynthetic"), "other"),
        ("nonsense, and more of it", "other"),
    ],
)
def test_the_digital_source_type_is_read_in_every_way_that_xmp_writes_it(look, form, written, term, meaning):
    pytest.importorskip("defusedxml", reason="XMP needs the extra provenance")
    (claim,) = look(with_xmp(source_type(term, written), form))
    assert (claim.meaning, claim.carrier, claim.verification) == (meaning, "xmp", "unverified")


def test_the_iptcs_properties_for_ai_are_read(look):
    pytest.importorskip("defusedxml", reason="XMP needs the extra provenance")
    body = "".join(
        f"<Iptc4xmpExt:{name}>{text}</Iptc4xmpExt:{name}>"
        for name, text in (
            ("DigitalSourceType", GENERATED),
            ("AISystemUsed", "Acme"),
            ("AISystemVersionUsed", "3"),
            ("AIPromptInformation", "a fox"),
        )
    )
    (claim,) = look(with_xmp(xmp(body)))
    assert (claim.generator, claim.prompt, claim.claimant) == ("Acme 3", "a fox", "Acme 3")


def test_without_defusedxml_the_xmp_is_there_and_unknown(look, monkeypatch):
    from tellsign.plugins.provenance import xmp as reader

    monkeypatch.setattr(reader, "find_spec", lambda name: None)
    claim, gap = look(with_xmp(source_type(GENERATED)))
    assert (claim.verification, claim.meaning) == ("unknown", "other")
    assert gap.kind == "unavailable"
    assert "tellsign[provenance]" in gap.reason


def test_an_image_description_with_a_job_number_counts_in_jpeg(look):
    claim = next(iter(look(saved("JPEG", exif=exif({DESCRIPTION: f"a fox --niji 5 Job ID: {UUID}"})))))
    assert (claim.generator, claim.generator_model, claim.carrier) == ("Midjourney", "niji 5", "exif")
