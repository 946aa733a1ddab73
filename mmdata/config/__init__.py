"""One typed tree describes a corpus: what `corpus.yaml` may say, its defaults, and what each key means."""

from mmdata.config.alerting import Alerts
from mmdata.config.corpus import Corpus
from mmdata.config.execution import Engine, Refresh, Train
from mmdata.config.media import Clips, Download, Privacy, Synthesis
from mmdata.config.observe import Observe
from mmdata.config.publishing import TASKS, Instruct, Releases, Shards
from mmdata.config.score import Score
from mmdata.config.section import Section
from mmdata.config.select import Balance, Dedup, Filter, Oversample, Select
from mmdata.config.source import COLUMNS_OF_KIND, PART_AND_SLICE_ROWS, SOURCE_KINDS, Source
from mmdata.config.takedown import OptOutList

__all__ = [
    "COLUMNS_OF_KIND",
    "PART_AND_SLICE_ROWS",
    "SOURCE_KINDS",
    "TASKS",
    "Alerts",
    "Balance",
    "Clips",
    "Corpus",
    "Dedup",
    "Download",
    "Engine",
    "Filter",
    "Instruct",
    "Observe",
    "OptOutList",
    "Oversample",
    "Privacy",
    "Refresh",
    "Releases",
    "Score",
    "Section",
    "Select",
    "Shards",
    "Source",
    "Synthesis",
    "Train",
]
