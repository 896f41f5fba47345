"""What does this gateway speak? One exchange a question (`ikeway probe`).

report = probe("vpn.example.com")
print(report.to_text())
for each in report.taken(TransformType.KE): ...
"""

from ikeway.workbench.probe.probe import probe
from ikeway.workbench.probe.report import Certificate, ProbeReport, State, TransformAnswer
from ikeway.workbench.probe.settings import ProbeSettings

__all__ = ["Certificate", "ProbeReport", "ProbeSettings", "State", "TransformAnswer", "probe"]
