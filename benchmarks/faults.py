"""What becomes of damaged files, hostile names, threads and killed runs.

    python benchmarks/faults.py mutations --count 10000 --output docs/benchmarks/faults_mutations
    python benchmarks/faults.py names --output docs/benchmarks/faults_names
    python benchmarks/faults.py threads --output docs/benchmarks/faults_threads
    python benchmarks/faults.py kills --output docs/benchmarks/faults_kills

`mutations` damages files of every format by bit flips, cuts, blocks of zeros and blocks of noise, and uses each: a
`.tflite` is inspected, run, timed, and compared with its model. A foreign exception, a caller that dies, a result that
differs in silence where there is a checksum: each is counted, and all should be none.
"""
