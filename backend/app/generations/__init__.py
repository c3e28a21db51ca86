"""What a generation is, and its whole life. No HTTP: features translate requests into these words, and back.

A request for images is one generation for each image, all with the request's id. Each ends by itself: where only some
can be drawn, these are delivered. The status of a generation is a column of its row. These are all its transitions:

    (nothing) ── accept ──► delivered     free images of the stub: each is a function of its row
    (nothing) ── accept ──► processing    every other synchronous request; the row has a lease
    (nothing) ── accept ──► queued        an asynchronous request: a job
    queued ── take ──► processing         a worker has it, by a lease
    processing ── settle ──► delivered    its image is kept; it counts
    processing ── settle ──► failed       with the code of its error; it does not count. Where all images of a request
                                          have failed, its Idempotency-Key is free again
    processing ── give back, sweep ──► queued       its worker stops, or died before a provider was asked
    processing ── sweep, take-over ──► lost         its lease is over, and it may have been paid
    processing ── sweep ──► failed                  a job whose workers have died three times
    queued, processing ── cancel, sweep, give back ──► cancelled    by its caller before a provider was asked, with its
                                          key or account, or because it waited too long
    failed, lost, cancelled ── requeue ──► queued   a job, by an operator

Only statements of the ledger make transitions, each under the lock of the generation's key (`take`: of its lane). So of
a late settlement and a sweep exactly one takes place.

inputs (images that go in are read) → accept (ids, claim, record) → run (draw and keep, while no connection is held) →
settle; then serve, list, delete, sweep.
"""
