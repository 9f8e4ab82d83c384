"""How fast the service answers, beside FastAPI's hello world and ``mlflow models serve``.

``python -m benchmarks serving`` runs it:

stage     stores with a year of made-up weather, a champion of one LightGBM booster and one of a blend, MLflow's model
servers   every server in a process of its own, one worker, on loopback, with what it costs the processor
load      wrk, keep-alive, 1, 8 and 32 connections
tick      10 000 series forecast anew after a tick
soak      half the peak for as long as asked, while champions are swapped
report    the ratios beside their bars, as Markdown and JSON
"""
