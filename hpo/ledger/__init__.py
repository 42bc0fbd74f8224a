"""The slots of a study's budget: who runs which, until when, why each attempt ended, and the curves.

A slot is claimed by one conditional UPDATE, so a budget of N is exactly N trials whatever the number of
workers. Its number is the number of the trial in Optuna's tables, whose rows are written in the same
transaction as ours: there is no moment in which the two disagree.

    free -> claim -> running -> finish             -> done      (finished, patience, pruned, diverged)
                             -> give_back          -> free      (interrupted; does not count)
                             -> fail, worker_died  -> free      (error, out_of_memory, killed)
                             -> the third of these -> failed    (killed: the third without a new epoch)
                             -> reap               -> free      (expired: no fault)
                             -> the 30th in a row  -> failed    (expired, without a new epoch)

:mod:`hpo.ledger.ledger` is the whole of it; :mod:`hpo.ledger.on_postgresql` writes some of its steps
otherwise, and names the one hazard that this brings. This file imports nothing: a glance needs the values
alone.
"""
