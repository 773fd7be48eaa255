"""What the commands of `jnas.cli` say of themselves."""

HELP = """\
jnas: neural architecture search in JAX

  jnas search CONFIG [--key.path value ...] --out DIR   search; the same command again resumes
  jnas score --proxies A,B --archs all --out FILE        score architectures; the same command again goes on
  jnas train CONFIG --arch A --out DIR                   train one network; the same command again goes on
  jnas table build|import|show                          accuracies of many cells as one file
  jnas study CONFIG --out DIR                           theory beside experiment, on a table
  jnas export DIR --out DIR                             a trained network as files for others
  jnas report DIR                                       write DIR/report.html anew
  jnas list [FAMILY]                                    what there is to choose from
  jnas --version

Each command explains itself with --help.
"""

SEARCH_HELP = """\
jnas search CONFIG [--key.path value ...] --out DIR

Searches as the YAML file CONFIG says and leaves in DIR: config.yaml, records.sqlite, result.json, report.html
and log.txt. The same command again resumes an interrupted run, or shows the result of a finished one.

Examples
  jnas search configs/tenas_digits.yaml --out runs/digits
  jnas search configs/tenas_nasbench201.yaml --data cifar10 --seed 3 --out runs/cifar10_seed3
  jnas search configs/tenas_digits.yaml --ntk.normalisation frozen --training.epochs 0 --out runs/frozen
  jnas search configs/posterior_shakeshake_digits.yaml --out runs/shakeshake

Keys, in CONFIG (those with a point in their section) or here as --key value
"""

SCORE_HELP = """\
jnas score --space S --proxies A,B --archs FILE|all|random:N --data D --out scores.csv|.parquet

Scores architectures by training-free proxies, in compiled batches on all devices. Columns: architecture,
each proxy with its status, params, flops. Rows appear in the CSV as they are computed; beside it lies
FILE.journal, from which the same command, or one that asks for more, goes on. Equivalent architectures are
computed once. A score that failed has a status other than ok, and counts as the worst.

Examples
  jnas score --proxies naswot,synflow --archs random:1000 --data cifar10 --out scores.csv
  jnas score --proxies ntk,regions --archs all --data cifar10 --out tenas.parquet
  jnas score --proxies zico --archs cells.txt --network.cells_per_stage 1 --executor ray --out zico.csv
  srun jnas score --proxies ntk --archs all --coordinator auto --out ntk.csv

  --proxies  names, separated by commas (jnas list proxies)
  --archs    a file with one architecture a line or a CSV with a column 'architecture', all, or random:N
  --out      the table to write, .csv or .parquet (extra 'parquet')
  --executor [local]  local, or ray for a Ray cluster (extra 'ray')
"""

PROCESSES_HELP = """\

Several machines, or processes, share the work where each is given the same command and what jax.distributed needs.
Process 0 alone reads and writes the files of --out; if one fails or is interrupted, all end.

  --coordinator  HOST:PORT of process 0; or auto, with nothing else, under Slurm, Open MPI or on TPUs
  --processes    how many processes there are, N
  --process      which of them this is, 0 to N-1

Keys, in CONFIG where there is one (those with a point in their section) or here as --key value
"""

TRAIN_HELP = """\
jnas train CONFIG --arch ARCHITECTURE|DIR [--key.path value ...] --out DIR

Trains the network of one architecture, or of the one that a finished search in a folder found, as the YAML file
CONFIG says, and leaves in DIR: config.yaml, records.sqlite, result.json, report.html, log.txt, the weights in
checkpoints and curves in tensorboard. The same command again goes on where an interrupted training was stored.

Examples
  jnas train configs/train_darts_digits.yaml --arch runs/darts_seed0 --out runs/train_digits
  jnas train configs/train_darts_cifar10.yaml --arch runs/darts_seed0 --recipe.precision bfloat16 --out runs/cifar10
  jnas train configs/train_nasbench201.yaml --arch "|nor_conv_3x3~0|+|..." --out runs/nasbench201
  srun jnas train configs/train_darts_imagenet.yaml --arch runs/darts --coordinator auto --out runs/imagenet
"""

TABLE_HELP = """\
jnas table build  --out FILE.npz [--cells N|all] [--key value ...]
jnas table import FILE --data D --epochs 12|200 --out FILE.npz
jnas table show   FILE.npz|digits

build trains the distinct cells of a space, in a fixed random order, many in one program, with several seeds, and
writes what each reached as one small file. The same command again goes on after a kill, or with more cells. import
makes such a file of what NAS-Bench-201 (.pth) and NATS-Bench (.pickle.pbz2, or the folder ending in -simple) are
published as; these are pickles, of which nothing but numbers and texts is read. show says what a table holds; digits
is the one that comes with jnas.

Examples
  jnas table build --data digits --cells 1500 --out digits.npz
  jnas table import NATS-tss-v1_0-3ffb9-simple --data cifar10 --epochs 200 --out cifar10.npz

  --cells    [all]  of the distinct cells as many; a table grows by more
  --executor [local]  local, or ray for a Ray cluster (extra 'ray')
"""

STUDY_HELP = """\
jnas study CONFIG [--key.path value ...] --out DIR

Sets theory beside experiment as the YAML file CONFIG says, and leaves in DIR: study.csv, each figure as PNG and SVG,
and report.html with a paragraph that says what the numbers say.

Examples
  jnas study configs/study_search.yaml --out runs/study_search
  jnas study configs/study_rank.yaml --table cifar10.npz --data cifar10 --out runs/study_rank

Keys, in CONFIG (those with a point in their section) or here as --key value
"""

EXPORT_HELP = """\
jnas export TRAINING --out DIR

Writes the network of a finished training as DIR/network.safetensors, weights with architecture and preprocessing,
which jnas.load gives back, and DIR/network.stablehlo, from images to logits, which jax.export.deserialize runs
without jnas.

Example
  jnas export runs/train_digits --out exported/digits
"""

REPORT_HELP = """\
jnas report DIR

Writes DIR/report.html anew from the result.json, config.yaml and records.sqlite of a finished run: one file
that opens without a network.

Example
  jnas report runs/digits
"""

LIST_HELP = """\
jnas list [spaces|proxies|strategies|oneshot|supernets|estimators|data]

Prints the names that a configuration may use, with one line each; all families where none is named.

Example
  jnas list data
"""
