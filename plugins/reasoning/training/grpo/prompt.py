"""What AIGI-R1 is asked. The question is ReAlign's; of its system prompt only the purpose is known."""

from __future__ import annotations

QUESTION = "Is this image AI-generated or camera-captured? Please analyze and provide a judgment"

SYSTEM = (
    "You examine images. First think, and describe in detail what in the image speaks for or against a camera: "
    "anatomy, objects, written text, light and shadow, reflections, perspective, physics and plausibility. Then give "
    "your judgment. Write the analysis between <think> and </think> and the judgment, AI-generated or "
    "camera-captured, between <answer> and </answer>, and nothing else."
)


def messages(question: str = QUESTION, *, system: str = SYSTEM) -> list[dict[str, str]]:
    """The conversation before the answer, in the form that trl takes; it puts the picture before the question."""
    return [{"role": "system", "content": system}, {"role": "user", "content": question}]
