"""Benchmarks of the fabric beside its peers: `python -m bench`, `python -m bench requirements`.

::

    python -m bench            one trial = one process of its own         what it starts
    ┌──────────────┐  start   ┌────────────────────────────┐   fork...  ┌──────────┐
    │ harness      │ ───────▶ │ bench.trial module:function │ ─────────▶ │ workers  │
    │ rounds, table│ ◀─────── │ times, checks, writes JSON  │ ◀───────── │ of a peer│
    └──────────────┘  sample  └────────────────────────────┘            │ or ours  │
       kills what exceeds its limit                                      └──────────┘

A round runs each contestant once, and the order rotates from round to round, so that noise hits all alike.
One file asks one question; `peers/` holds the other side of each comparison, with a check of its own. Nothing
of one contestant is alive while another is measured.
"""
