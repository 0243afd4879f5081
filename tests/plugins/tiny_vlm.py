"""A Qwen2.5-VL of transformers' own class, small enough for tests: random weights, and a tokenizer made on the spot."""

import json

import numpy as np
import torch

SPECIAL = ("<|im_start|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")

# In the style of the published one.
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.content is string %}{{ m.content }}{% else %}{% for c in m.content %}"
    "{% if c.type == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ c.text }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

FAKE = "This image is fake. The hand has six fingers."
REAL = "This image is real. The shadows fall to one side."


def tokenizer(corpus, size=900):
    """Qwen2Tokenizer with merges learned from `corpus`; without one every byte is a token."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers
    from transformers import Qwen2Tokenizer
    from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

    learner = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(PRETOKENIZE_REGEX), behavior="isolated")
    learner.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(False, use_regex=False)])
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    learner.train_from_iterator(
        corpus, trainers.BpeTrainer(vocab_size=size, initial_alphabet=sorted(alphabet), show_progress=False)
    )
    model = json.loads(learner.to_str())["model"]
    return Qwen2Tokenizer(
        vocab=model["vocab"],
        merges=[tuple(m) for m in model["merges"]],
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=list(SPECIAL),
    )


def corpus(*more):
    """Text in which the judge's own words are frequent enough to become tokens."""
    from tellsign.plugins.semantic.judge.prompt import QUESTION, SYSTEM

    words = "\nfake\nreal\nFake\nReal"
    return [FAKE, REAL, QUESTION, SYSTEM, words, "system user assistant", *more] * 3


def processor(tok, *, template=TEMPLATE):
    from transformers import Qwen2_5_VLProcessor, Qwen2VLImageProcessor, Qwen2VLVideoProcessor

    return Qwen2_5_VLProcessor(Qwen2VLImageProcessor(), tok, Qwen2VLVideoProcessor(), chat_template=template)


def model(tok, *, seed=0, width=32):
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    ids = {name: tok.convert_tokens_to_ids(f"<|{name}|>") for name in ("image_pad", "video_pad", "vision_start")}
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": len(tok),
            "hidden_size": width,
            "intermediate_size": 2 * width,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "rope_parameters": {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0},
            "bos_token_id": tok.pad_token_id,
            "eos_token_id": tok.eos_token_id,
            "pad_token_id": tok.pad_token_id,
        },
        vision_config={
            "depth": 2,
            "hidden_size": width,
            "intermediate_size": 2 * width,
            "num_heads": 2,
            "out_hidden_size": width,
            "fullatt_block_indexes": [1],
        },
        image_token_id=ids["image_pad"],
        video_token_id=ids["video_pad"],
        vision_start_token_id=ids["vision_start"],
        vision_end_token_id=tok.convert_tokens_to_ids("<|vision_end|>"),
    )
    torch.manual_seed(seed)
    net = Qwen2_5_VLForConditionalGeneration(config).eval()
    # As chat models come: sampling switched on, which a judge must not inherit.
    net.generation_config.update(do_sample=True, temperature=0.7, repetition_penalty=1.05)
    return net


def picture(dark, seed=0, size=(84, 56)):
    """Dark pictures stand for fakes, bright ones for photographs; uint8 (h, w, 3)."""
    rng = np.random.default_rng(seed)
    base = 40 if dark else 210
    return np.clip(rng.normal(base, 12, (*size, 3)), 0, 255).astype(np.uint8)


def save(folder, net, proc):
    net.save_pretrained(folder)
    proc.save_pretrained(folder)
    return folder


def teach(net, proc, examples, *, steps=60, rate=3e-3, tokens=(4, 16), prompt=None):
    """Make it say given answers about given pictures; returns the last loss.

    `examples` are pairs of a picture and an answer; `prompt` is the judge's where none is given.
    """
    from PIL import Image

    from tellsign.plugins.semantic.judge.inputs import encode_batch, render
    from tellsign.plugins.semantic.training.dpo.loss import answer_log_p
    from tellsign.towers.vlm import Vlm

    vlm = Vlm(net.train(), proc, "taught")
    unit = (14 * 2) ** 2
    proc.image_processor.size = {"shortest_edge": tokens[0] * unit, "longest_edge": tokens[1] * unit}
    prompt = prompt or render(proc, answer="")
    end = proc.tokenizer.eos_token
    images = [Image.fromarray(p) for p, _ in examples]
    inputs = encode_batch(vlm, images, [prompt + answer + end for _, answer in examples])
    # Padded on the left: the answer is the end of each row.
    lengths = [len(proc.tokenizer.encode(answer + end)) for _, answer in examples]
    mask = torch.zeros_like(inputs["input_ids"])
    for row, length in zip(mask, lengths, strict=True):
        row[-length:] = 1
    optimiser = torch.optim.Adam(net.parameters(), lr=rate)
    for _ in range(steps):
        loss = -(answer_log_p(net(**inputs).logits, inputs["input_ids"], mask) / mask.sum(dim=1)).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    net.eval()
    return float(loss.detach())
