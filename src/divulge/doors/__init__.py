"""The doors: they take what people have, check it, normalise it once and give `Evidence`.

    two mappings   ─ splits ─┐
    a frame, .csv, .parquet ─ tables ─┤  flat names -> (n,) or (n, c) arrays ─ assemble ─► Evidence
    .npz           ─ either ─┘

The flat names are those of a saved file: member, logits | probs | predictions, labels, loss …, signal_<name>,
column_<name>, features, ids, groups, traces. `arrays` turns anything array-like into numpy, `outputs` and
`labels` know what outputs and labels must be, `names` holds the words. Every error is an `InputError`.
"""
