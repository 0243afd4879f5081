"""A plugin in a process of its own: what crashes, hangs or fills the memory there, ends there.

The process is a fresh interpreter (never a fork), told what to do over its stdin and answering on its stdout. Views go
over and evidence comes back as the vocabulary's own JSON with the data of arrays raw beside it. Nothing is pickled, in
neither direction: what comes back is read by the strict reader that reads JSON from anywhere, so that the worst that a
process gone mad can do is to be refused.

It guards against faults and not against malice: the process has the rights of whoever started it.
"""
