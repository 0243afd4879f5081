"""The semantic set, which the reasoning plugin learns from as well (`tellsign.data.balance`)."""

from __future__ import annotations

from tellsign.data.balance import FINE, TOPICS, SemanticSet, Topics, balance, embeddings, make, match, source_weight

__all__ = ["FINE", "TOPICS", "SemanticSet", "Topics", "balance", "embeddings", "make", "match", "source_weight"]
