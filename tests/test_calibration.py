"The calibration study in a small setting: it runs, writes its tables, and what must hold holds."
import numpy as np
import pandas as pd
import papermill
from readme import ROOT

from tst_mi.statistics import LEAST_UNITS

REPLICATES = 20


def test_the_study_runs_and_its_claims_hold(tmp_path, monkeypatch):
    monkeypatch.setenv("TST_MI_CACHE", str(tmp_path/"cache"))   # nothing of an earlier run
    papermill.execute_notebook(str(ROOT/"nbs"/"82_calibration_study.ipynb"), str(tmp_path/"out.ipynb"), progress_bar=False,
                               parameters=dict(replicates=REPLICATES, stored=800, control_runs=2, networks="JapaneseVowels", control_networks="JapaneseVowels", n_flips=500, n_boot=500, jobs=1, out_dir=str(tmp_path)))
    read = lambda name: pd.read_csv(tmp_path/"calibration"/f"{name}.csv")
    null, leaning, mixed, planted, controls, checks = (read(k) for k in ("null", "leaning", "mixed", "planted", "controls", "checks"))
    allowed = lambda cells: .05 + 3*np.sqrt(.05*.95/REPLICATES/cells)
    few = null.units < LEAST_UNITS
    assert (null.holds[few] == "refused").all() and few.any()
    assert (null.holds[(null.kind == "against zero") & (null.units < 100)] == "refused").all()  # nor few units without a control source
    donors = null[(null.kind == "exchangeable donors") & ~few]
    assert donors.ours.mean() <= allowed(len(donors))
    clustered = null[null.layout.str.startswith("13") & (null.kind == "exchangeable donors")]
    assert clustered["t-test + BH"].mean() > .2                                                 # what pairs taken for independent would do
    tested = leaning[leaning.triples >= LEAST_UNITS]
    assert tested.ours.mean() <= allowed(len(tested)) and tested["sign-flip alone"].mean() > .07   # the limit of exactness
    assert (leaning.holds[leaning.triples < LEAST_UNITS] == "refused").all()
    ours = mixed[mixed.procedure == "ours"]
    assert ours.FDR.mean() <= allowed(len(ours))
    by_class = planted[planted.triples_from.isin(["contrast", "error, denoising"])]
    by_output = planted[(planted.triples_from == "contrast, correct instances") & (planted.triples == 200)]
    assert by_class.FDR.mean() <= allowed(len(by_class)) < by_output.FDR.mean()
    assert len(by_class) == 20 and (by_class["power over planted heads"] > .3).all()
    assert set(controls.control[:3]) == {"scrambled", "rotated", "rotated, one size"} and controls.holds.all()
    assert len(checks) == 13 and checks.held.dtype == bool
