"""Random graphs of composite layers, subclassed models and built-in layers: is each smaller model the same function?

    python benchmarks/random_graphs.py --seeds 500 --output docs/benchmarks/random_graphs

Each seed draws a graph, random weights, and 30 % of the channels of every group.
"""

import argparse
import sys
import warnings
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))
TOLERANCE = 1e-5


def measure(seed):
    import keras
    from channel_checks import RandomChannels, randomise
    from mixed_graphs import MixedGraph, zero

    import tfprune

    keras.backend.clear_session()
    keras.utils.set_random_seed(seed)
    model = randomise(MixedGraph(seed).model(), seed)
    plan = tfprune.plan_shrink(model, RandomChannels(0.3, seed))
    small = tfprune.shrink(model, plan)
    before, after = model.count_params(), small.count_params()
    zero(model, plan)
    return {
        "seed": seed,
        "model": "subclassed" if type(model).__name__ == "Whole" else "functional",
        "before": before,
        "after": after,
        "difference": tfprune.certify(model, small).largest,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--seeds", type=int, default=500, help="how many seeds")
    from tables import Measured, add_output, versions, write

    from tfprune.report import Column

    add_output(parser)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    rows, failed = [], []
    for seed in range(options.first, options.first + options.seeds):
        try:
            rows.append(measure(seed))
            print(seed, rows[-1]["difference"], flush=True)
        except Exception as error:
            failed.append(f"Seed {seed}: {type(error).__name__}: {' '.join(str(error).split())[:200]}")
            print(failed[-1], flush=True)

    class Graphs(Measured):
        title = "Random graphs of composite layers and subclassed models"
        columns = (
            Column("seed", "seed", "d"),
            Column("model", "model"),
            Column("before", "parameters", ",d"),
            Column("after", "after", ",d"),
            Column("difference", "largest difference", ".1e"),
        )

    equal = sum(row["difference"] <= TOLERANCE for row in rows)
    about = [f"{equal} of {len(rows) + len(failed)} are equal within {TOLERANCE:g} of the output's scale.", versions()]
    write([Graphs(rows, [*about, *failed])], options.output)
    return int(equal < len(rows) + len(failed))


if __name__ == "__main__":
    sys.exit(main())
