"""`make bench BENCH=name`: a table, and as the last line one JSON object with the figures."""

import argparse
import json
import sys

from benchmarks import operator_bench, vault_bench
from hack.errors import SetupError

BENCHES = {"operator": operator_bench.run, "vault": vault_bench.run}


def main() -> int:
    """Run one benchmark."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("bench", choices=sorted(BENCHES))
    parser.add_argument("--quick", action="store_true", help="fewer objects, one round, a shorter rest: to try it out")
    arguments = parser.parse_args()
    try:
        figures = BENCHES[arguments.bench](quick=arguments.quick)
    except SetupError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    print(json.dumps({"bench": arguments.bench, "figures": figures}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
