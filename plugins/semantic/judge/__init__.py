"""A vision-language model as a judge of meaning: a score from its verdict's logits, and its reasons in words."""
