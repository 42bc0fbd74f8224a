"""A whole study for where people keep their records: trials, curves and the answer, in others' formats.

``study.py`` makes one value of a study; each other module writes it, and is all that knows its format. The
libraries are extras (``hpo[mlflow]``, ``hpo[tensorboard]``, ``hpo[wandb]``), loaded by the export that asks.
"""
