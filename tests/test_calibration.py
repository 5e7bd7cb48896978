"The calibration study in a small setting: it runs, writes its tables, and what must hold holds."
import numpy as np
import pandas as pd
import papermill
from readme import ROOT

REPLICATES = 20


def test_the_study_runs_and_its_claims_hold(tmp_path):
    papermill.execute_notebook(str(ROOT/"nbs"/"82_calibration.ipynb"), str(tmp_path/"out.ipynb"), progress_bar=False,
                               parameters=dict(replicates=REPLICATES, networks="JapaneseVowels", n_flips=500, n_boot=500, jobs=1, out_dir=str(tmp_path)))
    read = lambda name: pd.read_csv(tmp_path/"calibration"/f"{name}.csv")
    null, mixed, planted, checks = (read(k) for k in ("null", "mixed", "planted", "checks"))
    few = 2/2.**null.units > .05
    assert (null.holds[few] == "refused").all() and few.any()                                # 4 clusters are not tested
    assert (null.holds[(null.kind == "against zero") & (null.units < 100)] == "refused").all()  # nor few units without a control source
    donors = null[(null.kind == "exchangeable donors") & ~few]
    assert donors.ours.mean() <= .05 + 3*np.sqrt(.05*.95/REPLICATES/len(donors))
    clustered = donors[donors.layout.str.startswith("13")]
    assert clustered["t-test + BH"].mean() > .2 > clustered.ours.mean()                      # what pairs taken for independent would do
    assert mixed[mixed.procedure == "sign-flip + BH"].FDR.mean() <= .05 + 3*np.sqrt(.05*.95/REPLICATES/36)
    assert planted.set_index("selection").loc["all", "FDR"] <= .05 + 3*np.sqrt(.05*.95/REPLICATES)
    assert len(checks) == 7 and checks.held.dtype == bool
