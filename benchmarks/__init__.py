"""What measures speed and accuracy, beside the baselines that they are measured against.

`harness/` is what all of them are made of, `servers/` are the servers that flambeau is compared with. Run each by
`python -m benchmarks.<room>.<name>` from the project's folder; the figures that are kept are in `results/`.
"""
