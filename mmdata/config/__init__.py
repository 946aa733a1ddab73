"""One typed tree describes a corpus: what `corpus.yaml` may say, its defaults, and what each key means."""

from mmdata.config.balance import Balance, Oversample
from mmdata.config.corpus import Corpus
from mmdata.config.execution import Compare, Engine, Refresh, Train
from mmdata.config.media import Clips, Download, Privacy, Synthesis
from mmdata.config.observe import Alerts, Observe
from mmdata.config.publishing import Instruct, Releases, Shards
from mmdata.config.recaption import Recaption
from mmdata.config.score import Network, Score
from mmdata.config.section import Section
from mmdata.config.select import Dedup, Filter, Select
from mmdata.config.source import SOURCE_KINDS, OptOutList, Source

__all__ = [
    "SOURCE_KINDS",
    "Alerts",
    "Balance",
    "Clips",
    "Compare",
    "Corpus",
    "Dedup",
    "Download",
    "Engine",
    "Filter",
    "Instruct",
    "Network",
    "Observe",
    "OptOutList",
    "Oversample",
    "Privacy",
    "Recaption",
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
