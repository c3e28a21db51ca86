"""What a generation is, and its whole life. No HTTP: features translate requests into these words, and back.

A request for images is one generation for each image, all with the request's id, and each with an end of its own: where
only some can be drawn, these are delivered. The status of a generation is a column
of its row, and these are all its transitions:

    (nothing) ── accept ──► delivered     by the stub, whose image is a function of the row: accepting settles it
    (nothing) ── accept ──► processing    by a provider that costs, or by the stub from images; the row has a lease
    processing ── settle ──► delivered    its image is kept; it counts
    processing ── settle ──► failed       with the code of its error; it does not count. Where all images of a request
                                          have failed, its Idempotency-Key is free again
    processing ── sweep, take-over ──► lost    its lease was over: the worker died, or came too late

`queued` and `cancelled` are for generations that no request waits for. Only the statements of the ledger make
transitions, each under the lock of the generation's key, so of a late settlement and a sweep exactly one takes place.

inputs (images that go in are read) → accept (ids, claim, record) → run (draw and keep, while no connection is held) →
settle; then serve, list, delete, sweep.
"""
