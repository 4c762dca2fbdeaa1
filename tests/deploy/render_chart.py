"""Render the Helm chart as `helm template` does.

    python tests/deploy/render_chart.py deploy/helm/slicewatch < values.json

Standard input has the values, standard output the files by path, and the messages of the linter; both are JSON. Helm
runs in this process of its own, because the threads and signal handlers of Go stay as long as the process.
"""

import json
import sys

from helm_python import Chart, HelmError, lint


def main() -> None:
    """Print the rendered files, or exit with the error."""
    path, values = sys.argv[1], json.load(sys.stdin)
    try:
        with Chart.load(path) as chart:
            files = chart.render(values, name="slicewatch", namespace="shop")
        print(json.dumps({"files": files, "lint": lint(path, values, strict=True)["messages"]}))
    except HelmError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
