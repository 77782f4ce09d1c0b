"""PerFit's method, data and byte accounting: torch and transformers only, no Flower and no Ray.

threads          of a process that computes: how many, and how long they spin; set before torch is loaded
randomness       one random generator a name: (seed, purpose, round, user) decides what is drawn
atomic_write     files written beside and renamed: a reader sees the old one or the whole new one
strict_json      JSON without NaN and infinities: null with a reason, and back
number_row       named numbers of one of many: names once for all, a row of numbers each
cache            the folder of derived files, which may be deleted
plain_cells      cells of CSV files that no spreadsheet takes for a formula
plain_text       texts of others as one plain line, for logs and terminals
weak_memory      answers that are remembered as long as the base model that they are about
statistics/      intervals and tests for paired numbers of a few users
base/            the frozen base model: where it comes from, its device, dtype, shapes and memory
edits/           edits of hidden states, and LoRA: their algebra, where they apply, how they hang on the blocks
averages/        means of edits, for the server's side of a round
forward/         forward passes that many users share: batches, losses of completions, states kept for later passes
training/        local training of one or many users' edits
answering/       answers and losses under edits: decoding, scoring, choice among labels, the four arms of a test
lamp/            the LaMP benchmark: tasks, users, a device's own history, cohorts, metrics, submissions
prompts/         what stands before a row: retrieved items of the user's history, a profile text
communication/   every byte: how edits travel, what crossed, what it costs by analysis
privacy/         private tensors at rest: written, sealed, erased
resuming/        what lets a run be gone on with: which run holds a vault, and what it has done there
settings/        the run config: its keys and their rules, the registry of methods, paths
methods/         the methods a run can choose, one file each
exploration/     what users' vectors and trained edits look like: spectra, the shift of all, neighbours, clusters
policy/          a device's own rules: what a run may ask of it, and what may leave it
"""

from fed import threads

threads.bound()
