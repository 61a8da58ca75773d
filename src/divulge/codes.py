"""Every DV code, once: its title, its likely cause and its fix. `divulge explain CODE` prints them.

DV0xx input, DV1xx leakage, DV2xx controls, DV3xx policy, DV4xx references, DV5xx private training,
DV9xx internal. A code is never reused.
"""

from __future__ import annotations

from typing import NamedTuple


class Code(NamedTuple):
    """What a code means.

    >>> CODES["DV101"].title
    'the model tells members from non-members'
    """

    title: str
    cause: str
    fix: str


CODES: dict[str, Code] = {
    # DV0xx input
    "DV001": Code(
        "a name that divulge does not know",
        "A misspelt key, column, signal or option. Names that nobody reads are refused, since the audit "
        "would go on without what they hold.",
        "Correct the name; the message lists the known ones. Own figures go under signals={…} (or "
        "signal_<name>), columns to slice by under columns={…} (or column_<name>).",
    ),
    "DV002": Code(
        "a value that cannot be read as an array of numbers or text",
        "Lists of different lengths, batches that were not joined, a column of mixed types, objects, masked "
        "values, or something that is not a table at all.",
        "Make it one rectangular array of numbers, or one text a record; join batches with numpy.concatenate.",
    ),
    "DV003": Code(
        "an array has the wrong shape",
        "A missing or extra axis, outputs of a sequence model that were not summed over its steps, or two "
        "sides from different models.",
        "Outputs are (n, c), or (n,) with one value a record; labels (n,) or (n, c) of 0 and 1; signals (n,).",
    ),
    "DV004": Code(
        "arrays that belong together differ in length",
        "A last batch that was dropped for one array and not for another, members and non-members swapped "
        "in one of them, or a field given for one side only.",
        "Give one row a record in every array, in the same order, and the same fields for both sides.",
    ),
    "DV005": Code(
        "one side has no records",
        "An audit compares records the model was trained on with records it never saw, and one of the two is missing.",
        "Give both. Held-out records of the same kind as the training set are the non-members.",
    ),
    "DV006": Code(
        "missing or infinite values",
        "NaN from a diverged model or a failed join, ±inf from exp of a large logit or from the log of a "
        "probability that was rounded to 0.",
        "Export logits in float32 instead of losses or probabilities; otherwise leave those rows out, on "
        "both sides by the same rule, and say how many in your report.",
    ),
    "DV007": Code(
        "a text that is too long",
        "A column of documents or a damaged file was taken for labels, names or a column to slice by.",
        "Leave the column out (columns=[…] names the ones to keep), or replace its texts with short codes.",
    ),
    "DV008": Code(
        "one thing is given twice",
        "Two columns could each be the label, the member column or the outputs; a column or array name "
        "stands twice; a signal is given both by its own name and under signals; predictions come with "
        "logits.",
        "Rename or drop one, or say which is meant: member=, label=, outputs= (--member, --label, --outputs).",
    ),
    "DV009": Code(
        "the member column has a value that stands for neither side",
        "A third split, a missing value, or a column that is not the member column at all.",
        "Leave those rows out, name the right column, or name the words: member_values=, nonmember_values=.",
    ),
    "DV010": Code(
        "no column tells members from non-members",
        "The table has no column called split, member, is_member or in_train.",
        "Add one (train / test, or 1 / 0), or name yours with member= (--member).",
    ),
    "DV011": Code(
        "validation data in place of non-members",
        "Data that chose the epoch, the settings or the threshold shaped the model: it is not a clean "
        "outsider, and makes the leak look smaller.",
        "Use held-out test records. If nothing else is there, name the word (nonmember_values=) and say so "
        "in the report.",
    ),
    "DV012": Code(
        "probs rows do not sum to 1",
        "Logits were passed as probs, a class column is missing, or these are one probability a label "
        "(sigmoid outputs).",
        "Pass logits=… for values before the softmax; for sigmoid outputs pass multi-hot labels (n, c); "
        "export unrounded.",
    ),
    "DV013": Code(
        "logits that are probabilities",
        "Every row lies between 0 and 1 and sums to 1, as the output of a softmax does. Read as logits they "
        "would make every record look unsure.",
        "Pass probs=…; better, export the values before the softmax, which keep confident records apart.",
    ),
    "DV014": Code(
        "probs outside 0..1",
        "Scores before the sigmoid, or margins of a boosted model or support vector machine, were passed as probs.",
        "Pass logits=….",
    ),
    "DV015": Code(
        "there is nothing to attack",
        "No outputs, no signal, no traces and no references came in: only labels, columns or features.",
        "Give logits (best), probs, predictions, or a loss for each record.",
    ),
    "DV016": Code(
        "a predicted standard deviation that is not positive",
        "The second column of predictions is a log variance or a second target.",
        "Give the standard deviation itself, or only the mean; audit several targets one by one.",
    ),
    "DV017": Code(
        "an option that does not apply to this file",
        "A file that divulge saved, or one with names such as logits_train, already says what its arrays are.",
        "Leave the options out that the message names.",
    ),
    "DV018": Code(
        "blocks of a stream that do not fit together",
        "A file of the folder has other columns, outputs of another width or labels of another kind than the others.",
        "Write all files from one table; leave out what is of another kind.",
    ),
    "DV020": Code(
        "labels that cannot be read",
        "Soft or smoothed labels, fractions for a classifier, text for a regression.",
        "Give each record's class; for a regression pass predictions=… in place of logits or probs.",
    ),
    "DV021": Code(
        "a label has no output column",
        "Labels count from 1, mark unlabelled rows with -1 or 255, or belong to another model.",
        "Subtract 1, leave unlabelled rows out, or pass classes=[…], the label values in the order of the columns.",
    ),
    "DV022": Code(
        "it is open which label has which output column",
        "Texts (or two unusual numbers) as labels do not say their columns, and there are not as many of "
        "them as columns.",
        "Pass classes=[…], the label values in the order of the columns; for one output column [value for "
        "0, value for 1].",
    ),
    "DV023": Code(
        "classes= does not fit",
        "It has another number of names than the outputs have columns, a name twice, or is not a list.",
        "List each label value once, in the order of the output columns.",
    ),
    "DV024": Code(
        "a label that classes= does not name",
        "A misspelt or forgotten class, or a label type that reads differently as text.",
        "Add it to classes= at its column's place, or leave those rows out.",
    ),
    "DV030": Code(
        "no such file, or no data in it",
        "A wrong path, a device or pipe in place of a file, a folder without .parquet files; on a cluster, a file that "
        "not every node sees; a file that this user may not read.",
        "Check the path, and the file's permissions.",
    ),
    "DV031": Code(
        "a file format that divulge does not read or write",
        "Another suffix or content than .npz, .parquet, .csv or a folder of .parquet files; or a newer "
        "divulge wrote it.",
        "Save as .npz: numpy.savez('predictions.npz', logits_train=…, labels_train=…, logits_test=…, labels_test=…).",
    ),
    "DV032": Code(
        "a damaged file",
        "The file is empty, cut off, overwritten, or of another kind than its suffix says; a .csv row has "
        "too many fields.",
        "Write it again. A copy that was still running is the usual cause.",
    ),
    "DV033": Code(
        "a file with pickled objects",
        "An array of Python objects (texts as objects, lists of different lengths) was saved. Unpickling "
        "can run any code.",
        "Save plain arrays: array.astype(str) for text, one rectangular array for numbers, numpy.savez(…).",
    ),
    "DV034": Code(
        "something that the file format cannot carry",
        ".csv and .parquet have no place for reference models, .csv none for some class names and labels.",
        "Save as .npz, which carries everything.",
    ),
    "DV035": Code(
        "a place that cannot be written to",
        "The folder does not exist, is read-only or full, or the name is that of a folder.",
        "Make the folder, or choose another. A file that was there before is unharmed.",
    ),
    "DV037": Code(
        "a checkpoint of something else",
        "The checkpoint was begun with other attacks, slices or seed, or with functions of the same names and other "
        "code, or a file that it has counted was changed.",
        "Use the settings that it was begun with, or another file as checkpoint.",
    ),
    "DV040": Code(
        "this evidence does not hold what the attack needs",
        "An attack, signal or slice was named that needs labels, outputs, features, traces or references "
        "that are not there, or is made for another kind of model.",
        "Give what the message names, or leave the attack out; the default set skips what it cannot compute.",
    ),
    "DV051": Code(
        "a metric that divulge does not know",
        "A misspelt name, or a rate that is not a fraction: tpr@1 where tpr@0.01 is meant.",
        "Correct the name; the message lists the known ones. Rates lie between 0 and 1: tpr@0.001, "
        "ppv@0.01,0.1 (FPR, prior). A function of a Roc and an error probability is a metric too.",
    ),
    "DV052": Code(
        "an attack that divulge does not know, or none, or one twice",
        "A misspelt name, a signal that this evidence does not hold, more words in the brackets than the attack "
        "takes, two attacks of one name, an empty list, or a class where its instance is meant.",
        "Correct the name; the message lists the known ones. A function of the evidence and a generator that gives one "
        "score a record is an attack too, and so is a scikit-learn classifier: GaussianNB(), or "
        "Learned(GaussianNB(), name='mine') where two would have one name.",
    ),
    "DV053": Code(
        "records cannot be sliced by this",
        "A misspelt column or signal, a number of bins that is not one, quantiles that do not rise from 0 to "
        "1, a column with a value for nearly every record, or a cross of slices that overlap.",
        "Correct the name; the message lists the known ones. Bin a numeric column (age/10), group the rare "
        "values of a text column before the audit, and cross only slices of which a record is in one.",
    ),
    "DV054": Code(
        "the report does not have this",
        "A misspelt table, metric, attack or slice, an estimate that fits several rows, a data frame library that is "
        "not installed; or records of an audit that was not asked for them, or of a run file, which never holds them.",
        "Correct the name; the message lists what there is. Say which attack, fpr or prior where several fit. For "
        "records, audit with records=True.",
    ),
    "DV055": Code(
        "not a run file",
        "Another JSON file, one that was cut off or edited by hand, or one of another version of divulge.",
        "Give a file that `divulge audit --json` or Report.save wrote; write it again if it is damaged.",
    ),
    "DV056": Code(
        "an argument of the audit, or a setting of an attack, that cannot be used",
        "A confidence or min_n outside its range; evidence with only members or only non-members; a setting of an "
        "attack outside its range, such as a model that it does not have, or a shape that the features do not fill.",
        "The message says what was expected: confidence from 0.5 up to, not including, 1; min_n of at least "
        "2; records of both sides; for an attack the words it takes, such as learned(boosting).",
    ),
    "DV057": Code(
        "an attack's scores have the wrong shape or type",
        "A function of your own, or an attack's prepare, gave one score a class, one number for all records, or "
        "something else than numbers.",
        "Give one number a record, shape (n,), in the order of the evidence; NaN where a record cannot be scored.",
    ),
    "DV058": Code(
        "there is no control of that name",
        "A misspelt name in controls=.",
        "Use one of the names that the message lists; a leading '-' turns a control off.",
    ),
    "DV059": Code(
        "nothing is left once the records on both sides are left out",
        "The same records were given as members and as non-members.",
        "Give the records the model was trained on, and others that it was not.",
    ),
    "DV060": Code(
        "these runs cannot be compared",
        "Fewer than two runs, two runs under one name, or runs whose intervals have different confidence.",
        "Give two or more run files under different names, audited at one confidence.",
    ),
    "DV061": Code(
        "an argument of a report's form that cannot be used",
        "A limit so low that the verdict and the main figures would not fit, or an empty name.",
        "The message says what was expected; without the argument the form has a default.",
    ),
    "DV065": Code(
        "this evidence is not that of its run",
        "Another file, one that changed since the audit, or columns that were named for the audit and are not here; or "
        "not one evidence for each run.",
        "Give for each run, in the same order, the evidence it was audited with: in Python the same Evidence, on the "
        "command line what Evidence.save wrote. None stands for a run that has none; it stays unpaired.",
    ),
    "DV066": Code(
        "runs are paired by ids, and this evidence has none",
        "Two runs share a record where an id says so: two models' outputs of one record have nothing else in common.",
        "Audit with ids (ids=, --id), the same id for the same record in every run; or compare without evidence, "
        "where the differences are as of independent samples.",
    ),
    "DV067": Code(
        "a series that cannot be made or read",
        "No runs, names or steps that are not one a run and all different, or a series.json that was edited or cut.",
        "Give one name and one finite step a run. A folder without series.json is read too: its run files, by name.",
    ),
    "DV068": Code(
        "an argument of the monitor that cannot be used",
        "Too few records a side, an epoch that comes again, data that can be read only once, or a limit on what is not "
        "a score.",
        "The message says what was expected. Epochs rise from call to call; a new training needs a new Monitor.",
    ),
    "DV069": Code(
        "a log that cannot take figures",
        "Neither a function of (figures, step) nor an object whose log() takes a dict of figures.",
        "Give a function, a Weights & Biases run, or one of divulge.reporters.track.",
    ),
    "DV070": Code(
        "a model that no adapter knows",
        "It comes from another framework, is wrapped in a class of its own, or holds no weights (an unbound Flax one).",
        "Pass a function from a batch of inputs to its logits: divulge.collect(lambda x: model.logits(x), …); or write "
        "the outputs to a file (`divulge recipe`).",
    ),
    "DV071": Code(
        "a framework that is needed is not installed",
        "divulge alone installs none: the model or file came from another environment.",
        "Install the extra that the message names, such as pip install 'divulge[onnx]'.",
    ),
    "DV072": Code(
        "records without labels",
        "The inputs were given alone, or their labels under a name that divulge does not know.",
        "Give (x, y), batches of (x, y), or dicts with 'labels' or 'label'.",
    ),
    "DV073": Code(
        "records that come in a changing order, or not all of them",
        "A training loader shuffles, samples, repeats, or drops its last batch: ids and columns would belong to other "
        "records.",
        "Give the data set itself, or a loader with shuffle=False and drop_last=False, before .repeat().",
    ),
    "DV074": Code(
        "data that cannot be read in batches",
        "A type of data that divulge does not know, texts for a model without a tokenizer, a missing input, or three "
        "parts that may be (x, y, weights) or ((x, k), y).",
        "Give (x, y) with x an array, a frame, a list, or a mapping of the model's inputs to arrays.",
    ),
    "DV075": Code(
        "outputs that are not one row of numbers a record",
        "A model with several outputs, of a sequence or an image, one that was not fitted, a ranking, margins of "
        "pairs of classes, or an objective of its own.",
        "Pass a function that picks one: divulge.collect(lambda x: model(x)[0], …); audit several outputs one by one.",
    ),
    # DV1xx leakage
    "DV101": Code(
        "the model tells members from non-members",
        "The vulnerability score of all records is credibly above zero (or above the policy's limit): the model's "
        "outputs differ between the records it was trained on and fresh records of the same kind, mostly because "
        "it fits its training records more closely than new ones.",
        "Stop training earlier, regularise (weight decay, dropout, augmentation, fewer parameters), use more data, "
        "or train with differential privacy; publish labels or rounded scores instead of full outputs only after "
        "measuring again, since that hides a leak from this attack more than it removes it.",
    ),
    "DV102": Code(
        "the model tells members from non-members within a slice",
        "In this slice the score is credibly above zero (or above the policy's limit) after allowing for the number "
        "of slices looked at. Small, rare or wrongly classified groups are often memorised most.",
        "Look at the slice's records: duplicates, wrong labels, outliers. Add data for the group, remove or correct "
        "wrong labels, regularise more, or train with differential privacy, which bounds every record's leakage.",
    ),
    "DV103": Code(
        "members are found at a low false-positive rate more often than by chance",
        "At a low false-positive rate the best attack finds credibly more members than chance. An average score "
        "can hide this: a few records may be memorised while most are not.",
        "Find out which records they are (rows far above every non-member), remove duplicates and "
        "mislabelled records, clip or regularise, or train with differential privacy.",
    ),
    "DV104": Code(
        "an attack is credibly worse than chance",
        "The attack's AUC is credibly below 0.5: members look less like members than non-members do. Usually the "
        "sign of a given signal is wrong, the split columns are swapped, or the two sides come from different data.",
        "Check the direction (loss-like signals under the names loss, nll, entropy or perplexity, others "
        "with lower_is_member=), and that members are the rows used in training. The score is not flipped for you.",
    ),
    "DV105": Code(
        "an attack's AUC is above the policy's limit",
        "The lower bound of the AUC of at least one attack lies above the limit that the policy sets.",
        "As for DV101; or, if the limit was meant for something else, change the policy and say why.",
    ),
    "DV106": Code(
        "an attack's figure is above the policy's limit",
        "The lower bound of a gated figure (a true-positive rate at a low false-positive rate, a PPV, an advantage) "
        "lies above the policy's limit.",
        "As for DV101, and for figures at low false-positive rates as for DV103.",
    ),
    "DV107": Code(
        "leakage grew against the baseline",
        "The lower bound of the difference to the baseline run lies above the policy's max_increase.",
        "Compare what changed (data, epochs, regularisation) with the baseline run; `divulge compare` shows both.",
    ),
    # DV2xx controls
    "DV201": Code(
        "the two sides differ without the model",
        "Features or columns alone tell members from held-out records: they are of another time, place or selection. "
        "The attack may find that difference and not a leak.",
        "Split one pool at random into training and held-out records (keeping persons whole), train on the one and "
        "audit with both. Do not give columns that are made from the model's outputs.",
    ),
    "DV202": Code(
        "the two sides hold different shares of the classes",
        "The held-out records were not drawn as the training records were: balanced or collected otherwise.",
        "Draw the held-out records at random from the same pool; or read the figure with the mix made equal.",
    ),
    "DV203": Code(
        "records stand on both sides",
        "The same record is a member and a non-member: duplicates in the data, or a split that was not clean.",
        "Remove duplicates before splitting. They were left out here; were they many, check the split.",
    ),
    "DV204": Code(
        "persons or groups have records on both sides",
        "Records were split, not persons: a held-out record of a person in the training data is not a clean "
        "non-member, and the score leans low.",
        "Split by person (group), and audit again.",
    ),
    "DV205": Code(
        "many records have the same score",
        "Outputs were rounded, saturated in float32, or take few values (small forests, neighbours). Ties hide what "
        "happens at low false-positive rates.",
        "Export logits, or probabilities in full precision, before any rounding.",
    ),
    "DV206": Code(
        "the outputs do not look like what they were called",
        "Probabilities were given as logits, or the other way round.",
        "Pass logits as logits= and probabilities as probs=.",
    ),
    "DV207": Code(
        "too few records for sound intervals",
        "With fewer than 50 records on a side the intervals' promises do not hold (docs/coverage.md).",
        "Audit more records, held-out ones above all.",
    ),
    "DV208": Code(
        "an attack sees membership where there is none",
        "With membership dealt out at random the attack still tells the sides apart: it is scored on the rows it was "
        "fitted on, or reads membership itself.",
        "Fit and score on different rows (cross-fitting); do not let the attack read `evidence.member` of the rows it "
        "scores.",
    ),
    "DV209": Code(
        "an attack missed a leak that was planted",
        "A leak of known size was planted, twice, and the attack found neither: its scores are constant, point the "
        "wrong way, or do not depend on what was planted.",
        "Mend or leave out the attack: a low number from it means nothing.",
    ),
    "DV210": Code(
        "the held-out records chose the model",
        "Epochs, hyperparameters or the model itself were chosen on these records, so the model fits them too and the "
        "score leans low.",
        "Audit with records that played no part in training or choosing.",
    ),
    "DV211": Code(
        "one side's labels do not go with its outputs",
        "The model is right on one side and at chance on the other, or at chance on both: labels were shuffled, "
        "misaligned with the outputs, or coded otherwise.",
        "Check the order of rows and the label coding of that side.",
    ),
    "DV212": Code(
        "an attack could score one side's records less often",
        "Scores that are missing (NaN) count as lowest; where they are missing more on one side, that alone tells the "
        "sides apart.",
        "Find out why the attack gives NaN there, and mend it.",
    ),
    "DV213": Code(
        "the non-members differ among themselves by time or order",
        "Late non-members are told from early ones, by a column of dates or by the order of rows (which only warns), "
        "and members of the same period do not drift alike: the attack may see drift.",
        "Take members and non-members from the same period, at random.",
    ),
    "DV214": Code(
        "the reference models do not behave like the target",
        "Their accuracy or signals on their own members and non-members differ from the target's: another recipe, "
        "size or number of epochs; or their rows are in another order; or one of them is the target itself.",
        "Train the references as the target was trained, on the evidence's records in the evidence's order, and leave "
        "the target out.",
    ),
    "DV215": Code(
        "the model was in training mode, or its outputs depend on the batch",
        "The same record scored in two batches gave different outputs: dropout or batch normalisation was active.",
        "Switch to evaluation mode (model.eval(), training=False) before collecting outputs.",
    ),
    "DV216": Code(
        "stored reference outputs belong to something else",
        "The target, the data, the signal or the code tag changed since the references were stored.",
        "Use another store, or run the references again.",
    ),
    # DV3xx policy
    "DV301": Code(
        "the policy has a key that divulge does not know",
        "A misspelt gate, option or table name; a policy with an unread key would pass what it meant to stop.",
        "Correct the name; the message lists the known ones.",
    ),
    "DV302": Code(
        "the policy holds a value that cannot be used",
        "A limit that is not a number, a date that is not a date, a table where a number should stand.",
        "Correct the value; the message says what was expected.",
    ),
    "DV303": Code(
        "the policy file cannot be read",
        "The file is missing, is not TOML, or has no [gate] (or [tool.divulge.gate]) table.",
        "Give the right path with --policy, or --no-policy to gate nothing.",
    ),
    "DV304": Code(
        "a gate needs a baseline and none was given",
        "The policy limits an increase (max_increase), which is a difference to an earlier run.",
        "Pass baseline= or --baseline run.json, or take max_increase out of the policy.",
    ),
    "DV305": Code(
        "a waiver has expired",
        "The policy waives a finding until a date that has passed, so the finding counts again.",
        "Mend the leak, or renew the waiver with a new date and a reason.",
    ),
    "DV306": Code(
        "a gate could not be decided",
        "The interval straddles the limit, or the figure is undefined for this sample; the sample is too small for "
        "a clear answer.",
        'Audit more records (held-out ones above all), or accept the doubt with inconclusive = "pass" or "fail".',
    ),
    "DV307": Code(
        "a waiver matched nothing",
        "The policy waives a finding that this run does not have: it is mended, or the code or slice is misspelt.",
        "Take the waiver out, or correct it.",
    ),
    # DV4xx references
    "DV401": Code(
        "a design of reference models that cannot be made or used",
        "Fewer than two rows or groups, no models, a fraction outside 0..1 or so near its ends that a model would be "
        "trained on nothing or on everything, groups of another length, or a design that is no (models, rows) table "
        "of bools.",
        "divulge.design(rows, models) makes a sound one; groups= needs one id a row, and two groups or more.",
    ),
    "DV402": Code(
        "a reference model failed to train",
        "Your fit or its predict raised the error that the message ends with, or gave NaN, or another number of rows "
        "than it was asked for.",
        "Call fit(data, rows, seed) yourself with the model's rows and the seed in the message. Models that were "
        "finished are in the store, where there is one: the same call goes on from there.",
    ),
    "DV403": Code(
        "data or code that cannot be named",
        "A store reuses a model, and a stream's checkpoint is gone on from, only with the same data and code, known by "
        "their content. A generator, an open file or an object of a compiled library without a way to be pickled "
        "shows none.",
        "Give arrays, tables or lists; or a tag that begins with data= (tag='data=cifar-10 of May'): it then stands "
        "for what cannot be read, and you change it when that changes. An attack or a slicer opens its files when it "
        "is called, or the stream is audited without a checkpoint.",
    ),
    "DV404": Code(
        "a cluster that is not there, or workers that were lost too often",
        "No Ray cluster is at the address; a node lacks divulge, has another version of it, or lacks a module that an "
        "attack needs; or processes were killed several times, mostly because memory ran out; or the executor broke.",
        "Start a cluster with `ray start` and install the same divulge on every node. Use fewer workers, or a smaller "
        "model: models that were finished are in the store, where there is one.",
    ),
    "DV405": Code(
        "this fit, or this attack, cannot be run that way",
        "executor='vmapped' needs a fit that trains many models at once (fit_many) and an optimiser that works on each "
        "parameter by itself; other processes and hosts need a fit and data, attacks and slices, that cloudpickle can "
        "send there.",
        "Use executor='processes', or None for a loop, which runs every fit; divulge.fits.Torch and Jax train many at "
        "once.",
    ),
    "DV406": Code(
        "a file of the store is damaged or foreign",
        "It was cut off, edited or copied from elsewhere, or has the name of a file of the store by chance.",
        "A stored model is trained again by the next run, the others stay. For another file do as the message says.",
    ),
    "DV407": Code(
        "a store of another format",
        "Another version of divulge wrote this folder.",
        "Use another folder, or the version of divulge that wrote it.",
    ),
    "DV408": Code(
        "a store without finished models",
        "Training has not finished its first model yet, or all of them are damaged.",
        "Run fit_references (or divulge references run) with this store until it ends.",
    ),
    "DV409": Code(
        "the store's records are not the evidence's",
        "Ids that the store lacks or has twice, labels that differ, another number or order of records.",
        "Give ids in both (ids=), so that records are matched by them; or train references on this data.",
    ),
    "DV410": Code(
        "free references that cannot be had",
        "Folds that were not shuffled, a forest without bootstrap or with few trees, estimators that were not fitted, "
        "or another number of folds than estimators: what they say of a record would differ by more than its "
        "membership.",
        "Do as the message says: shuffled folds, bootstrap=True; or train references with fit_references.",
    ),
    "DV411": Code(
        "a references file that cannot be used",
        "The Python file raised an error, lacks data or fit, misspells a name, or holds something that is no fit.",
        "It defines data, a tuple (x, y) or a function that returns it, and fit, an estimator or a function "
        "fit(data, rows, seed) that returns predict(data, rows, query).",
    ),
    "DV412": Code(
        "canaries that cannot be made or used",
        "More canaries than records, a single class, inputs of a kind that this sort of canary cannot be made of, or "
        "other records than those that they were made from.",
        "Ask for fewer, or for mislabelled ones alone, which work for any inputs; use them with their own records.",
    ),
    "DV413": Code(
        "the references' design favours a side",
        "Members and non-members were in unequal shares of the reference models, so that the references alone tell "
        "them apart.",
        "Give every record, member or not, to the same share of models: divulge.design does.",
    ),
    "DV414": Code(
        "the references are not exchangeable",
        "What models that never saw a record say of it, without the target, tells members from non-members: the sides "
        "differ in kind, or the references were chosen by side (folds that were not shuffled).",
        "Take members and non-members from one source at random, and deal both to the references alike.",
    ),
    # DV5xx private training
    "DV501": Code(
        "nothing can be guaranteed with these privacy parameters",
        "Training without noise, a sampling rate that is no probability, a delta or an epsilon out of reach.",
        "Give a noise multiplier above 0 (divulge.dp.accounting.noise_for finds it for an epsilon), batch_size of at "
        "most the number of records, and a delta of a tenth of 1 / records or less.",
    ),
    "DV502": Code(
        "batches that are not Poisson samples",
        "Batches were shuffled, weighted, ordered or chosen by the caller. The accounting holds where each step draws "
        "each record on its own with one probability.",
        "Leave the drawing of batches to the private training: give it the data whole.",
    ),
    "DV503": Code(
        "a model or option that the private training does not cover",
        "Batch normalization or another layer that mixes records or keeps statistics of them, weights on records or "
        "classes, accumulated gradients, a train_step of the model's own: data would reach the weights past clipping "
        "and noise, or not as was accounted for.",
        "Leave it out or replace it as the message says (GroupNorm or LayerNorm for batch normalization).",
    ),
    "DV504": Code(
        "the data are not the records that were declared",
        "Another number of rows than records=, or a stream or generator, whose records have no number.",
        "Give arrays with a row a record, and their number as records=.",
    ),
    "DV505": Code(
        "more steps than the noise was made for",
        "Training went on after the declared steps; each step spends more of the privacy budget.",
        "Stop, or start again with the steps that are needed and the noise they take.",
    ),
    "DV506": Code(
        "private training does not run on this Keras backend",
        "Keras runs on TensorFlow, JAX or torch; each way to train privately works with one of them.",
        "Set KERAS_BACKEND=tensorflow for divulge.dp.keras, jax for divulge.dp.jax.private_keras, before Keras is "
        "imported. For torch itself, use divulge.dp.torch.",
    ),
    # DV9xx internal
    "DV901": Code(
        "divulge itself failed",
        "A defect in divulge, not in your data or your model.",
        "Report it with the command and the traceback (-v prints it). No verdict was given.",
    ),
}
